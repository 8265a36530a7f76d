"""Sandboxes made ahead of their commands, and the thread that makes up for those that were taken."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import structlog

from clawback.enforcement.sandbox import wire
from clawback.enforcement.sandbox.slot import Failed, Slot
from clawback.errors import ClawbackError

__all__ = ["Spares"]

_LOG = structlog.get_logger()
_DELAY = 0.05


class Spares:
    """Thread-safe. `make` gives a new slot, ready or not yet; `wanted` of them are kept."""

    def __init__(self, make: Callable[[], Slot], wanted: int) -> None:
        self._make = make
        self._wanted = wanted
        self._lock = threading.Lock()
        self._slots: list[Slot] = []
        self._due = threading.Event()
        self._closing = threading.Event()
        # Waiting from the start: a thread started at a launch would be paid for by it.
        self._thread = threading.Thread(target=self._run, name="spares", daemon=True)

    def start(self) -> None:
        """Make the wanted number and keep it up from now on."""
        self._fill()
        if self._wanted:
            self._thread.start()

    def take(self) -> Slot | None:
        """The oldest spare, if there is one."""
        with self._lock:
            return self._slots.pop(0) if self._slots else None

    def replenish(self) -> None:
        """Make up for what was taken, a little later: the agent just started has the processors first."""
        self._due.set()

    def settle(self, timeout: float) -> None:
        """Wait until all are made and idle. `TimeoutError` past `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                slots = list(self._slots)
            if len(slots) >= self._wanted and all(slot.is_ready() for slot in slots):
                return
            if time.monotonic() > deadline:
                raise TimeoutError("no spare sandbox became ready")
            time.sleep(0.002)

    def close(self) -> None:
        """Give up all of them, and wait until nothing of them is left."""
        self._closing.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for slot in self._slots:
                slot.dismiss()
            self._slots.clear()

    def _fill(self) -> None:
        while not self._closing.is_set() and len(self._slots) < self._wanted:
            slot = self._make()
            # Looked at while there is time; one that failed says so to whoever takes it.
            with contextlib.suppress(Failed, wire.Closed, OSError):
                slot.await_cage()
            with self._lock:
                self._slots.append(slot)

    def _run(self) -> None:
        while not self._closing.is_set():  # looked at after `clear` too: it may have cleared what `close` set
            self._due.wait()
            if self._closing.wait(_DELAY):
                return
            self._due.clear()
            try:
                self._fill()
            except (ClawbackError, OSError) as error:
                _LOG.warning("no spare sandbox", reason=str(error))
