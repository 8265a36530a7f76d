"""Incidents, findings, receipts and the timeline, each change one durable transaction.

A receipt's change and its line in the timeline are written together. Every method that changes something returns the
thing as it then stands; all raise `NotFound` for an unknown id, and `Refused` for a step that its state does not allow.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from clawback.journal.approvals import Approvals
from clawback.journal.caps import Caps
from clawback.journal.drift import Drift
from clawback.journal.incidents import Incidents
from clawback.journal.locks import Held, hold_lock, lock_owner
from clawback.journal.work import Work

__all__ = ["Journal"]


class Journal(Incidents, Drift, Approvals, Caps, Work):
    """The record of all incidents. `url` is SQLAlchemy's; `InvalidInput` or `Unreachable` if it does not open.

    Where there is none yet one is made; with `make=False` it is `NotFound`, as whoever asks about incidents means one
    that is there.
    """

    def lock(self, agent: str, *, timeout: float = 0.0) -> AbstractContextManager[Held]:
        """Be the only response that works on this agent, across processes; `Refused` after `timeout` seconds."""
        return hold_lock(self, agent, timeout)

    def lock_owner(self, agent: str) -> int:
        """The pid of the live process whose response works on the agent now; 0 for none."""
        return lock_owner(self, agent)
