"""Look every few seconds whether each hold still holds, and make it hold again where it does not."""

from __future__ import annotations

import threading

import structlog

from clawback.enforcement.core.holds import Holds
from clawback.enforcement.core.orders import Orders

__all__ = ["Keeper"]

_SECONDS = 2.0
_log = structlog.get_logger()


class Keeper:
    """A thread of its own: a proof from inside may take some milliseconds, and nothing else shall wait for it."""

    def __init__(self, holds: Holds, orders: Orders) -> None:
        self._holds = holds
        self._orders = orders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

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
        while not self._stop.wait(_SECONDS):
            for hold in self._holds.all():
                try:
                    self._orders.keep(hold.agent)
                except Exception:
                    _log.exception("hold not verified", agent=hold.agent)  # and tried again at the next turn
