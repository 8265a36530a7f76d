"""Undoes an incident's response: step by step, the last one first, each seen to be undone or said not to be.

That it began is written down first. Whoever goes on with the incident after a crash goes on undoing it, and does not
take up its playbook in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from clawback.errors import Refused
from clawback.journal import REVERTED
from clawback.model import UNDOING, Phase, Receipt, ReceiptState
from clawback.response.guard import guarded
from clawback.response.response import Response

__all__ = ["Fate", "Undone", "plan_undo", "undo"]


class Fate(StrEnum):
    """What undoing does, or did, with one step."""

    UNDO = "undo"  # there is something to undo, and a way
    NOTHING = "nothing"  # it was never begun, or is undone already
    STAYS = "stays"  # nothing undoes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """One step: what was to become of it, and its receipt as it stands now. `note` says why where it stays."""

    fate: Fate
    receipt: Receipt
    note: str = ""

    @property
    def honest(self) -> bool:
        """Nothing is left open about it: it is seen to be undone, or was known beforehand to stay."""
        return self.fate is not Fate.UNDO or self.receipt.state in REVERTED


def plan_undo(response: Response) -> tuple[Undone, ...]:
    """What would be undone, in the order in which it would be; touches nothing."""
    incident = response.journal.incident(response.incident_id)
    order = sorted(incident.receipts, key=lambda receipt: (receipt.intended_ns, receipt.id), reverse=True)
    return tuple(_fate(response, receipt) for receipt in order)


def _fate(response: Response, receipt: Receipt) -> Undone:
    if receipt.state in REVERTED:
        return Undone(fate=Fate.NOTHING, receipt=receipt, note=receipt.state.value)
    if receipt.state is ReceiptState.AWAITING or not receipt.captured_ns:
        return Undone(fate=Fate.NOTHING, receipt=receipt, note="was never begun")
    action = response.action(receipt.action)
    if action.revert is None:
        return Undone(fate=Fate.STAYS, receipt=receipt, note=f"{action.reversibility.value}: {action.scope}")
    return Undone(fate=Fate.UNDO, receipt=receipt)


def undo(response: Response, reason: str) -> Iterator[Undone]:
    """Undo, yielding each step as it is done with. One that cannot be undone now does not stop the others. A step that
    was never begun is settled as such: nobody begins it any more.

    `Refused` for an empty reason: it goes on record.
    """
    if not reason.strip():
        raise Refused("an incident is not undone without a reason", hint="--reason")
    steps = plan_undo(response)
    if not response.journal.incident(response.incident_id).undoing:
        response.journal.note(response.incident_id, Phase.RECOVER, UNDOING, f"{response.actor}: {reason}"[:1000])
    left = []
    for step in steps:
        if step.fate is Fate.NOTHING and step.receipt.state not in REVERTED:
            response.journal.revert_pending(step.receipt.id)
            settled = response.journal.already_absent(step.receipt.id, f"{step.note}, and will not be")
            yield Undone(fate=Fate.NOTHING, receipt=settled, note=step.note)
            continue
        if step.fate is not Fate.UNDO:
            yield step
            continue
        tried = guarded(f"revert of {step.receipt.action}", lambda it=step.receipt: response.revert(it))  # type: ignore[misc]  # mypy infers no type for a lambda's default
        now = Undone(fate=Fate.UNDO, receipt=tried.value or step.receipt, note=tried.error)
        if not now.honest:
            left.append(now.receipt.action)
        yield now
    stays = [step.receipt.action for step in steps if step.fate is Fate.STAYS]
    said = f"not undone: {', '.join(left) or 'none'}; cannot be: {', '.join(stays) or 'none'}"
    response.journal.note(response.incident_id, Phase.RECOVER, "undoing ended", said)
    response.journal.close(response.incident_id)
