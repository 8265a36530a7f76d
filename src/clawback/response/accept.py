"""Lets a step stand as it is, on a person's word: what was denied, cannot be done, or was done and cannot be seen.

It is settled by that and claims nothing: its receipt says who accepted what, and why. What depends on it is not made.
"""

from __future__ import annotations

from clawback.errors import InvalidInput, NotFound, Refused
from clawback.journal import Journal
from clawback.model import Incident, Receipt

__all__ = ["accept", "unsettled_step"]


def unsettled_step(incident: Incident, name: str) -> Receipt:
    """The step by its receipt's number, its key or its action's id. `NotFound` for none that is not settled yet,
    `InvalidInput` where several are meant.
    """
    left = [receipt for receipt in incident.receipts if not receipt.state.settled]
    found = [receipt for receipt in left if name in (str(receipt.id), receipt.key)]
    found = found or [receipt for receipt in left if name == receipt.action]
    if not found:
        keeps = ", ".join(f"{receipt.id} {receipt.action}" for receipt in left[:16]) or "nothing"
        raise NotFound(f"{incident.id} has no step {name[:128]!a} that is not settled", hint=f"open is: {keeps}")
    if len(found) > 1:
        numbers = ", ".join(str(receipt.id) for receipt in found)
        raise InvalidInput(f"{name[:128]!a} is {len(found)} steps of {incident.id}", hint=f"name one by {numbers}")
    return found[0]


def accept(journal: Journal, receipt: Receipt, *, who: str, reason: str) -> Receipt:
    """Let it stand. To be called with the agent's lock held. `Refused` for an empty reason, and for what is being
    undone.
    """
    if not reason.strip():
        raise Refused("a step is not accepted without a reason", hint="--reason")
    was = receipt.error or receipt.proof
    said = f"{who} accepts it as {receipt.state.value}: {reason.strip()[:1000]}"
    return journal.accepted(receipt.id, f"{said}; it was: {was}" if was else said)
