"""How held calls are answered; what was done for one whose answer did not arrive is kept for when the call returns."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass

from clawback.enforcement.kernel.notify import Held, Listener, Vanished
from clawback.enforcement.sandbox.escalated import Ledger
from clawback.enforcement.supervise.subject import Subject

__all__ = ["Outcome", "Outcomes"]

_UNDELIVERED_SECONDS = 10.0
_MOST_UNDELIVERED = 16


@dataclass(slots=True)
class Outcome:
    """What became of an emulated call: a value, an errno, or a file to hand over."""

    value: int = 0
    error: int = 0
    file: int = -1
    close_on_exec: bool = False
    until: float = 0.0

    def close(self) -> None:
        """Let go of the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


class Outcomes:
    """Of one agent. An interrupted call starts over, and must not be done twice: it is told by what it asks for."""

    def __init__(self, listener: Listener, ledger: Ledger) -> None:
        self._listener = listener
        self._ledger = ledger
        self._undelivered: dict[tuple[object, ...], Outcome] = {}

    def __bool__(self) -> bool:
        return bool(self._undelivered)

    def give(self, held: Held, outcome: Outcome, subject: Subject | None = None) -> None:
        """Answer the held call. What was done and could not be said is kept for the call that starts over."""
        try:
            if outcome.file >= 0:
                try:
                    flags = os.O_CLOEXEC if outcome.close_on_exec else 0
                    self._listener.give_file(held.id, outcome.file, flags=flags)
                except OSError as error:
                    self._listener.deny(held.id, error.errno or errno.EMFILE)
            elif outcome.error:
                self._listener.deny(held.id, outcome.error)
            else:
                self._listener.give(held.id, outcome.value)
        except Vanished:
            if subject is not None and not outcome.error and len(self._undelivered) < _MOST_UNDELIVERED:
                outcome.until = time.monotonic() + _UNDELIVERED_SECONDS
                self._undelivered[subject.same] = outcome
                self._ledger.answered(held.id)
                return
        self._ledger.answered(held.id)
        outcome.close()

    def made_before(self, subject: Subject) -> bool:
        """Whether this call was allowed and made already, and only its answer did not arrive; answers it then."""
        outcome = self._undelivered.pop(subject.same, None) if self._listener.valid(subject.held.id) else None
        if outcome is None:
            return False
        self.give(subject.held, outcome, subject)
        return True

    def expire(self, now: float) -> None:
        """Forget those that nobody came back for."""
        for key in [key for key, outcome in self._undelivered.items() if outcome.until < now]:
            self._undelivered.pop(key).close()

    def close(self) -> None:
        """Let go of everything."""
        for outcome in self._undelivered.values():
            outcome.close()
