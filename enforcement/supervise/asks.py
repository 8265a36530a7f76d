"""Calls that wait for a person: each is one question, bound to exactly that call, answered once, refused when late."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.records import bounded
from clawback.enforcement.supervise.subject import Subject
from clawback.errors import InvalidInput, NotFound

__all__ = ["Ask", "Asks"]

MOST_OF_AGENT = 16
_INTERRUPTED_SECONDS = 2.0


@dataclass(slots=True)
class Ask:
    """One question. `settle` is called with (allowed, by, reason) when it is decided, by whoever decides.

    `lost` is when its call was seen to be interrupted, 0 while it is held: a signal makes a call start over, and the
    one that is the same then takes the other's place. `told` is called with what became of it.
    """

    id: str
    box: Sandbox
    subject: Subject
    asked_ns: int
    expires: float
    settle: Callable[[bool, str, str], None]
    lost: float = 0.0
    told: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """For people and programs."""
        thread = self.subject.thread
        return {
            "id": self.id,
            "agent": self.box.agent,
            "instance": self.box.instance,
            "call": self.subject.name,
            "arguments": {name: bounded(value) for name, value in self.subject.shown.items()},
            "pid": thread.pid,
            "tid": thread.tid,
            "exe": bounded(thread.exe),
            "asked_ns": self.asked_ns,
            "expires_in_seconds": round(max(0.0, self.expires - time.monotonic()), 1),
        }


class Asks:
    """All of them. Bounded for each agent: what is too much is refused by the caller."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._asks: dict[str, Ask] = {}

    def __len__(self) -> int:
        return len(self._asks)

    def of(self, instance: str) -> list[Ask]:
        """One instance's."""
        return [ask for ask in self._asks.values() if ask.box.instance == instance]

    def all(self) -> list[Ask]:
        """Every one, oldest first."""
        return list(self._asks.values())

    def full(self, instance: str) -> bool:
        """Whether this instance has as many as it may."""
        return len(self.of(instance)) >= MOST_OF_AGENT

    def add(self, box: Sandbox, subject: Subject, settle: Callable[[bool, str, str], None]) -> Ask:
        """Ask."""
        ask = Ask(
            id=f"esc-{secrets.token_hex(4)}",
            box=box,
            subject=subject,
            asked_ns=time.time_ns(),
            expires=time.monotonic() + self.seconds,
            settle=settle,
        )
        self._asks[ask.id] = ask
        return ask

    def again(self, instance: str, subject: Subject) -> Ask | None:
        """The question about the same call of the same thread, which a signal interrupted: a thread has one call."""
        return next((ask for ask in self.of(instance) if ask.subject.same_question == subject.same_question), None)

    def take(self, id_: str) -> Ask:
        """To answer it; nobody can a second time. `NotFound`; `InvalidInput` where its call is not held now."""
        ask = self._asks.get(id_)
        if ask is None:
            raise NotFound(
                f"no escalation {id_[:64]!r} is pending", hint="it was answered, it expired, or its process has ended"
            )
        if ask.lost:
            raise InvalidInput(f"{id_}: its call was interrupted by a signal", hint="it may come again: list them")
        return self._asks.pop(id_)

    def drop(self, ask: Ask) -> None:
        """Forget it."""
        self._asks.pop(ask.id, None)

    def overdue(self, now: float) -> list[Ask]:
        """Past their time; removed."""
        late = [
            ask
            for ask in self._asks.values()
            if now >= ask.expires or (ask.lost and now >= ask.lost + _INTERRUPTED_SECONDS)
        ]
        for ask in late:
            del self._asks[ask.id]
        return late
