"""Looks again at what was verified, by the actions' own `recheck`; what does not hold is written down, not mended here.

A part that does not answer shows nothing: the receipt stays what it was, as of when it was seen.
"""

from __future__ import annotations

from clawback.action import Context, Verification
from clawback.errors import ClawbackError
from clawback.model import Phase, Receipt, ReceiptState
from clawback.response.acting import observed
from clawback.response.guard import guarded
from clawback.response.response import Response

__all__ = ["recheck", "still_drifts"]

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
        seen = _seen(response, context, receipt)
        if seen is not None and not seen.verified:
            now = response.journal.drifted(receipt.id, seen.proof, seen.enforcement)
            drifted.append(next(one for one in now.receipts if one.id == receipt.id))
    return tuple(drifted)


def still_drifts(response: Response, receipt: Receipt) -> bool:
    """Whether a step that was seen not to hold is to be made again: it does not hold now either. One that is seen to
    hold after all is verified by that look; one that cannot be looked at stays what it is.
    """
    seen = _seen(response, response.context(), receipt)
    if seen is not None and observed(seen):
        response.journal.verified(receipt.id, seen.proof, seen.enforcement)
    return seen is not None and not seen.verified


def _seen(response: Response, context: Context, receipt: Receipt) -> Verification | None:
    """None where there is no way to look, nothing that answers, or nothing that there is to be seen any more."""
    try:
        action = response.action(receipt.action)
        params = action.params.model_validate(receipt.params)
    except (ClawbackError, ValueError):  # of another version's catalogue: nothing here can look at it
        return None
    look = action.recheck
    if look is None:
        return None
    return guarded(f"{action.id} recheck", lambda: look(context, params, receipt.captured, receipt.outcome)).value
