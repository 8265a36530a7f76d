"""Undoes one step from its record alone, so that a crash at any point leaves what can be gone on from."""

from __future__ import annotations

from typing import Any

from clawback.action import Reversibility
from clawback.errors import Refused
from clawback.journal import REVERTED
from clawback.model import Receipt
from clawback.response.acting import Acting, observed
from clawback.response.guard import Outcome, guarded

__all__ = ["Reverting"]


class Reverting(Acting):
    """The half of `Response` that undoes."""

    def revert(self, receipt: Receipt) -> Receipt:
        """Undo a step from its record alone, and observe that it is undone. `Refused` for what cannot be undone."""
        action = self.action(receipt.action)
        if action.revert is None or action.verify_reverted is None:
            raise Refused(f"{action.id} is {Reversibility.IRREVERSIBLE.value}", hint=action.summary)
        revert, verify_reverted = action.revert, action.verify_reverted
        current = self._current(receipt)
        if current.state in REVERTED:
            return current
        params = action.params.model_validate(current.params)
        context = self.context()
        current = self.journal.revert_pending(current.id)
        if not current.captured_ns:
            return self.journal.already_absent(current.id, "apply was never started")
        captured = current.captured
        # An earlier revert may have been cut off after its effect; then there is nothing left to do.
        before = guarded(f"{action.id} verify_reverted", lambda: verify_reverted(context, params, captured))
        if before.value is not None and observed(before.value):
            return self.journal.already_absent(current.id, before.value.proof)
        done = guarded(f"{action.id} revert", lambda: revert(context, params, captured))
        if not done.ok:
            return self._revert_fell_short(current, done)
        seen = guarded(f"{action.id} verify_reverted", lambda: verify_reverted(context, params, captured))
        if seen.value is None:
            return self._revert_fell_short(current, seen)
        if not observed(seen.value):
            return self.journal.revert_failed(current.id, f"not observed: {seen.value.proof}")
        return self.journal.reverted(current.id, seen.value.proof)

    def _revert_fell_short(self, receipt: Receipt, outcome: Outcome[Any]) -> Receipt:
        if outcome.away:
            return self.journal.pending(receipt.id, outcome.error)
        if outcome.gone:
            return self.journal.orphaned(receipt.id, outcome.error)
        return self.journal.revert_failed(receipt.id, outcome.error)
