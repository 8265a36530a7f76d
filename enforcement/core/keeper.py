"""Look again and again whether each hold still holds, soon after an order and then more slowly; lift nothing, ever.

A hold with a date (`due_ns`) is not lifted when it has passed: it becomes due, once and for good, which is an event and
waits for a person. So no step of the clock, no crash and no sleep of the host lets anything go.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import structlog

from clawback.enforcement.core.orders import Orders
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.strikes import Strikes
from clawback.model import Lifecycle, Order, Severity

__all__ = ["Keeper"]

_TURN_SECONDS = 0.1
_FIRST_SECONDS = 0.25
_SHARE = 0.2
"""Of one processor, at most: a look that took a millisecond is followed by four without."""

_PATIENCE = 2.0
"""Seconds by which a look may be late while agents are quarantined: in a storm those that still run come first."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Watch:
    """Of one held agent: how many orders it had when it was last looked at, how long to wait, and until when."""

    orders: int
    pause: float
    at: float


class Keeper:
    """A thread of its own: a proof from inside may take some milliseconds, and nothing else shall wait for it.

    An agent is looked at 0.25 s after an order or a drift, then after twice as long each time, up to `seconds`.
    """

    def __init__(self, parts: Parts, orders: Orders, strikes: Strikes, *, seconds: float) -> None:
        self._parts = parts
        self._orders = orders
        self._strikes = strikes
        self._seconds = seconds
        self._watched: dict[str, _Watch] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self.late_seconds = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop; a look that is under way ends first."""
        self._stop.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        while not self._stop.wait(_TURN_SECONDS):
            try:
                self._turn()
                self._strikes.hold_forgotten()
                self._find_due()
            except Exception:
                _log.exception("holds not looked at")  # and tried again at the next turn

    def _turn(self) -> None:
        held = [(name, entry) for name, entry in self._parts.entries.copy().items() if self._parts.held(name)]
        for name in self._watched.keys() - {name for name, _ in held}:
            del self._watched[name]
        now = time.monotonic()
        due: list[tuple[float, str]] = []
        for name, entry in held:
            watch = self._watched.get(name)
            if watch is None or watch.orders != entry.orders:
                self._watched[name] = watch = _Watch(
                    entry.orders, _FIRST_SECONDS, now + min(_FIRST_SECONDS, self._seconds)
                )
            if watch.at <= now:
                due.append((watch.at, name))
        self.late_seconds = max((now - at for at, _ in due), default=0.0)
        for at, name in sorted(due):
            if self._stop.is_set():
                return
            if self._orders.busy and time.monotonic() - at < _PATIENCE:
                continue
            self._look(name, self._watched[name])

    def _look(self, name: str, watch: _Watch) -> None:
        began = time.monotonic()
        sound = False
        try:
            sound = self._orders.keep(name)
        except Exception:
            _log.exception("hold not verified", agent=name)  # and looked at again soon
        took = time.monotonic() - began
        watch.pause = min(watch.pause * 2, self._seconds) if sound else min(_FIRST_SECONDS, self._seconds)
        watch.at = time.monotonic() + watch.pause
        self._stop.wait(took * (1 / _SHARE - 1))

    def _find_due(self) -> None:
        now = time.time_ns()

        def over(order: Order) -> bool:
            return 0 < order.due_ns <= now

        for hold in self._parts.holds.dated():
            if any(over(order) and not order.due for order in hold.orders):
                for order in self._parts.holds.mark(hold.agent, over):
                    self._say_due(hold.agent, order)
        for halt in self._parts.halts.mark(
            one.id for one in self._parts.halts.all() if over(one.order) and not one.order.due
        ):
            self._say_due(halt.id, halt.order)

    def _say_due(self, what: str, order: Order) -> None:
        self._parts.say(
            Lifecycle.OTHER,
            "hold",
            "due",
            self._parts.entries.get(what),
            severity=Severity.MEDIUM,
            message=f"{what}: the time that {order.holder} gave it is over; it holds on until somebody releases it",
        )
