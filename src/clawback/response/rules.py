"""What the engine insists on, whoever wrote the playbook, as evidence before a rotation; and where it is lenient."""

from __future__ import annotations

from typing import Any

from clawback.action import Action, Reversibility
from clawback.model import Incident, Phase, Receipt, ReceiptState

__all__ = ["as_far_as_it_goes", "destroys_evidence", "evidence_is_held"]

EVIDENCE = "evidence."
# What a host may lack a part of. It is looked for and said to be missing, and no recovery waits for it to appear.
_TIGHTER = ("agent.restrict", "agent.seal")
_ISSUERS = ("vault:", "iam:", "oidc:", "sts:")


def destroys_evidence(action: Action[Any]) -> bool:
    """The action ends processes, or takes away credentials whose use would have shown who held them."""
    if "core:stop" in action.needs or "core:relaunch" in action.needs:
        return True
    rotates = any(need.startswith(_ISSUERS) for need in action.needs)
    return rotates and action.phase is Phase.ERADICATE and action.reversibility is not Reversibility.REVERSIBLE


def evidence_is_held(incident: Incident) -> bool:
    """Some evidence action of this incident was verified."""
    return any(
        receipt.action.startswith(EVIDENCE) and receipt.state is ReceiptState.VERIFIED for receipt in incident.receipts
    )


def as_far_as_it_goes(receipt: Receipt) -> bool:
    """It was made and seen to be less than asked for, because this host gives no more."""
    return receipt.action in _TIGHTER and receipt.state is ReceiptState.UNVERIFIED
