"""Holds playbooks back while alerts pour in: each contains its agent in the kernel, and that goes first.

Sixteen playbooks at work keep two processors busy, the core's among them, and an agent that has just gone rogue would
wait its turn for seconds. So while incidents are opened at a rate, no step is begun, and no playbook beside one that
runs. None is held for longer than `PATIENCE`: a flood of alerts must not keep the credentials of others open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Pace"]

WINDOW = 1.0  # seconds over which incidents are counted
RUSH, CALM = 8, 2  # incidents within it at which the rush begins, and at which it may be over
LULL = 4  # looks in a row that must find it calm: a machine that is full opens none for a moment, and more come after
PATIENCE = 2.0  # seconds that a step waits at most


class Pace:
    """Thread-safe. `look` hears how many incidents were opened within the last `WINDOW`; `step` surrounds each step."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._rush = False
        self._calm = 0
        self._under_way = 0

    @property
    def busy(self) -> bool:
        """A step is being made, or alerts pour in: what has time should wait."""
        return self._rush or self._under_way > 0

    @property
    def rush(self) -> bool:
        """Alerts pour in."""
        return self._rush

    def look(self, opened: int) -> None:
        """Begin or end the rush accordingly."""
        with self._changed:
            self._calm = self._calm + 1 if opened <= CALM else 0
            self._rush = self._calm < LULL if self._rush else opened >= RUSH
            if not self._rush:
                self._changed.notify_all()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Make a step within: in a rush once that is over, or after the patience."""
        until = time.monotonic() + self._patience
        with self._changed:
            while self._rush and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
