"""One flow or task that Prefect shows while we do it: when it begins there, and how long that is waited for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

__all__ = ["BUSY_SECONDS", "PATIENCE", "RUSH_SECONDS", "Pulse", "Shown"]

_log = structlog.get_logger()

PATIENCE = 5.0  # seconds from its start that a flow may take to begin; the measured p99 is 0.1 s
BUSY_SECONDS = 30.0  # the same, as long as others begin; thirty-two at once on two processors take up to ten
RUSH_SECONDS = 30.0  # that one is held back at most, as long as other agents wait to be contained


class Pulse:
    """When Prefect last began a flow of this process, by the monotonic clock: while it does, it is busy, not away."""

    def __init__(self) -> None:
        self.at = 0.0


class Shown:
    """One thing that Prefect shows while we do it: `begun` there, `ended` here."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pulse: Pulse | None = None) -> None:
        self._loop = loop
        self._pulse = pulse or Pulse()
        self._begun = threading.Event()
        self._since = time.monotonic()
        self._held: Callable[[], None] | None = None
        self._rush: Callable[[], bool] = _never
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._next: list[Callable[[], None]] = []
        self._ended: asyncio.Future[Callable[[], Any]] = loop.create_future()
        self.shown = False  # Prefect's side has begun
        self.context: contextvars.Context | None = None
        self.task: asyncio.Task[Any] | None = None

    async def body(self) -> Any:
        """What Prefect runs."""
        self.context = contextvars.copy_context()
        self.shown = True
        self._pulse.at = time.monotonic()
        self._begun.set()
        for call in self._next:
            call()
        # Made only here: Prefect's server drops a state that bears an earlier time than the "Running" before it.
        return (await self._ended)()

    def then(self, call: Callable[[], None]) -> None:
        """On the loop's thread: call it as soon as this has begun."""
        if self.shown:
            call()
        else:
            self._next.append(call)

    def start(self, what: Coroutine[Any, Any, Any], context: contextvars.Context | None = None) -> None:
        """On the loop's thread: let Prefect run it."""
        self.task = self._loop.create_task(what, context=context)
        self.task.add_done_callback(self._done)

    def hold(self, start: Callable[[], None], seconds: float, rush: Callable[[], bool] | None = None) -> None:
        """On the loop's thread: call `start` when `let` is called, or after so many seconds, or when it may be called
        and there is no `rush` any more, which is looked at as often; after `RUSH_SECONDS` in any case.
        """
        self._held, self._rush = start, rush or _never
        self._until = self._loop.time() + RUSH_SECONDS
        self._timer = self._loop.call_later(seconds, self._due, seconds)

    def _due(self, seconds: float) -> None:
        if self._rush() and self._loop.time() < self._until:
            self._timer = self._loop.call_later(seconds, self._due, seconds)
        else:
            self.let()

    def may_begin(self) -> None:
        """On the loop's thread: what is held back begins now, or after the rush."""
        if not self._rush():
            self.let()

    def let(self) -> None:
        """On the loop's thread: what is held back begins now."""
        if self._timer is not None:
            self._timer.cancel()
        start, self._held = self._held, None
        if start is not None:
            self._since = time.monotonic()
            start()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("prefect: a run could not be shown", error=type(error).__name__)
        self._begun.set()  # nobody need wait any longer

    def wait_begun(self) -> bool:
        """On the playbook's thread: true once Prefect shows it; false when it has not in time."""
        while (left := self.patient_until - time.monotonic()) > 0 and not self._begun.wait(left):
            pass  # another may have begun meanwhile
        return self.shown

    @property
    def patient_until(self) -> float:
        """By the monotonic clock: when its begin is no longer waited for, as things stand."""
        return min(self._since + BUSY_SECONDS, max(self._since, self._pulse.at) + PATIENCE)

    def end(self, state: Callable[[], Any]) -> None:
        """On the playbook's thread: tell Prefect how it ended, by what makes the state."""
        self._loop.call_soon_threadsafe(self._set, state)

    def _set(self, state: Callable[[], Any]) -> None:
        if not self._ended.done():
            self._ended.set_result(state)

    @property
    def kept(self) -> bool:
        """Prefect wrote down the end."""
        return self.task is not None and self.task.done() and not self.task.cancelled() and not self.task.exception()

    async def drop(self) -> None:
        """On the loop: nobody waits for it any more."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task}, timeout=1.0)


def _never() -> bool:
    return False
