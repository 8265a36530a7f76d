"""Looks again at what was verified, by the actions' own `recheck`; what does not hold is written down, not mended here.

A part that does not answer shows nothing: the receipt stays what it was, as of when it was seen.
"""

from __future__ import annotations

from clawback.action import Context
from clawback.errors import ClawbackError
from clawback.model import Phase, Receipt, ReceiptState
from clawback.response.guard import guarded
from clawback.response.response import Response

__all__ = ["recheck"]

_PHASES = (Phase.CONTAIN, Phase.ERADICATE)


def recheck(response: Response) -> tuple[Receipt, ...]:
    """Of one incident; returns the receipts that drifted. To be called with the agent's lock held, or not at all: in
    the middle of a response or an undoing, what is being changed looks like drift.
    """
    incident = response.journal.incident(response.incident_id)
    context = Context(incident=incident, world=response.world, actor=response.actor)
    drifted = []
    for receipt in incident.receipts:
        if receipt.state is not ReceiptState.VERIFIED or receipt.phase not in _PHASES:
            continue
        try:
            action = response.action(receipt.action)
            params = action.params.model_validate(receipt.params)
        except (ClawbackError, ValueError):  # of another version's catalogue: nothing here can look at it
            continue
        look = action.recheck
        if look is None:
            continue
        seen = guarded(
            f"{action.id} recheck",
            lambda look=look, params=params, it=receipt: look(context, params, it.captured, it.outcome),  # type: ignore[misc]  # mypy infers no type for a lambda's defaults
        )
        if seen.value is not None and not seen.value.verified:
            now = response.journal.drifted(receipt.id, seen.value.proof, seen.value.enforcement)
            drifted.append(next(one for one in now.receipts if one.id == receipt.id))
    return tuple(drifted)
