"""One agent's held calls, one flow after the other: what a flow asks for is done by a hand inside the sandbox."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.hand import Hand, Lost
from clawback.enforcement.supervise.subject import Flow, Reply

__all__ = ["Flows"]

_MOST_HANDS, _HANDS_SECONDS = 5, 10.0


class Flows:
    """`lost` is called, with the reason, when the hand is gone, before the flow that waited for it hears of it."""

    def __init__(self, box: Sandbox, lost: Callable[[str], None]) -> None:
        self.hand: Hand | None = None
        self._box = box
        self._lost = lost
        self._flow: Flow | None = None
        self._waiting: deque[Callable[[], Flow]] = deque()
        self._request: tuple[dict[str, Any], list[int]] | None = None
        self._dropped: list[int] = []
        self._hands: deque[float] = deque()

    @property
    def busy(self) -> bool:
        """One waits for the hand."""
        return self._flow is not None

    def begin(self, flow: Flow) -> None:
        """Go on with it until it waits or ends; there is no other."""
        self._flow = flow
        self._step(lambda: next(flow))

    def queue(self, flow: Callable[[], Flow]) -> None:
        """Make and begin this one when none is under way."""
        self._waiting.append(flow)
        if self._flow is None:
            self._next()

    def drop(self, found: list[int]) -> None:
        """The hand hears with its next request that these places are not needed any more."""
        self._dropped += found

    def answered(self) -> None:
        """The hand inside has answered, or ended."""
        if self.hand is None:
            return
        try:
            if not self.hand.greeted:
                if self.hand.greet():
                    self._request_again()
                return
            reply = self.hand.receive()
        except Lost as error:
            self._lose_hand(str(error))
            return
        self._advance(reply)

    def tick(self) -> None:
        """A hand that is late is lost."""
        if self.hand is not None and self._flow is not None and self.hand.late:
            self._lose_hand("the hand inside was late")

    def close(self) -> None:
        """End all of it; what the flow held is refused by the shim."""
        if self._flow is not None:
            self._flow.close()
            self._flow = None
        if self.hand is not None:
            self.hand.end()
            self.hand = None

    def _advance(self, reply: Reply) -> None:
        flow = self._flow
        if flow is None:
            for fd in reply[1]:
                os.close(fd)
            return
        self._step(lambda: flow.send(reply))

    def _step(self, go: Callable[[], tuple[dict[str, Any], list[int]]]) -> None:
        try:
            self._request = go()
        except StopIteration:
            self._flow = None
            self._next()
            return
        try:
            if self.hand is None:
                self.hand = self._new_hand()
            elif self.hand.greeted:
                self._request_again()
        except Lost as error:
            self._lose_hand(str(error))

    def _new_hand(self) -> Hand:
        """Making one takes the supervisor's own time: an agent that brings its hands to an end waits for the next."""
        now = time.monotonic()
        while self._hands and self._hands[0] < now - _HANDS_SECONDS:
            self._hands.popleft()
        if len(self._hands) >= _MOST_HANDS:
            raise Lost(f"{_MOST_HANDS} hands inside were lost within {_HANDS_SECONDS:g} s")
        self._hands.append(now)
        return Hand(self._box)

    def _request_again(self) -> None:
        request, self._request = self._request, None
        if request is None or self.hand is None:
            return
        message, fds = request
        dropped, self._dropped = self._dropped, []
        try:
            self.hand.send(message | {"drop": dropped}, fds)
        except Lost as error:
            self._lose_hand(str(error))

    def _lose_hand(self, why: str) -> None:
        """Whatever waits for it is refused; the next call gets a new one."""
        if self.hand is not None:
            self.hand.end()
            self.hand = None
        self._dropped = []
        if self._request is not None:
            for fd in self._request[1]:
                os.close(fd)
            self._request = None
        self._lost(why)
        flow = self._flow
        if flow is not None:
            self._step(lambda: flow.throw(Lost(why)))

    def _next(self) -> None:
        while self._flow is None and self._waiting:
            self.begin(self._waiting.popleft()())
