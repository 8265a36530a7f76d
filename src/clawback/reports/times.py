"""The times that matter in an incident, in milliseconds since the first rogue event, and the receipts as data.

A time is there only if what it names was observed: no receipt that is not `verified` contributes to one.
"""

from __future__ import annotations

from typing import Any

from clawback.model import Incident, Phase, Receipt, ReceiptState

__all__ = ["first_event_ns", "receipts", "times_ms"]

_CREDENTIALS = ("vault.", "aws.", "oidc.", "credential.")
_CUTTING = (Phase.CONTAIN, Phase.ERADICATE)


def first_event_ns(incident: Incident) -> int:
    """When the first rogue event happened, Unix nanoseconds; without a finding, when the incident was opened."""
    return min((finding.time_ns for finding in incident.findings), default=incident.opened_ns)


def _at(receipt: Receipt) -> int:
    """The instant that the core itself noted for a ladder level, else when the journal saw it applied."""
    noted = receipt.outcome.get("at_ns")
    return noted if isinstance(noted, int) and noted > 0 else receipt.applied_ns


def times_ms(incident: Incident) -> dict[str, float | None]:
    """`detected`, `frozen`, `isolated`, `verified`, `credentials_refused`, `recovered`; None where it was not observed.

    `verified` is when freeze and isolation had both been read back; `credentials_refused` when the last credential
    had been proved refused, and None while any of those steps is not verified; `recovered` when the replay of the
    rogue calls had been denied in the relaunched agent.
    """
    zero = first_event_ns(incident)
    good = [x for x in incident.receipts if x.state is ReceiptState.VERIFIED]

    def first(action: str) -> Receipt | None:
        return next((x for x in good if x.action == action), None)

    def since(at_ns: int) -> float | None:
        return round((at_ns - zero) / 1e6, 3) if at_ns else None

    freeze, isolate = first("agent.freeze"), first("agent.isolate")
    contained = max(freeze.verified_ns, isolate.verified_ns) if freeze and isolate else 0
    cut = [x for x in incident.receipts if x.action.startswith(_CREDENTIALS) and x.phase in _CUTTING]
    refused = max(x.verified_ns for x in cut) if cut and all(x.state is ReceiptState.VERIFIED for x in cut) else 0
    relaunched = [x for x in good if x.action == "agent.relaunch"]
    # What was replayed in a stage of the release shows the stage.
    validated = [x for x in good if x.action == "policy.validate" and not x.params.get("stage")]
    rolled_back = first("release.roll-back") is not None and not relaunched
    recovered = max(x.verified_ns for x in validated) if relaunched and validated and not rolled_back else 0
    return {
        "detected": since(incident.opened_ns),
        "frozen": since(_at(freeze)) if freeze else None,
        "isolated": since(_at(isolate)) if isolate else None,
        "verified": since(contained),
        "credentials_refused": since(refused),
        "recovered": since(recovered),
    }


def receipts(incident: Incident) -> list[dict[str, Any]]:
    """Every receipt as `{action, state, enforcement, attempts, proof}`; a failed one carries `error` too."""
    return [
        {
            "action": x.action,
            "state": x.state.value,
            "enforcement": x.enforcement.value if x.enforcement else None,
            "attempts": x.attempts,
            "proof": x.proof,
            **({"error": x.error} if x.error else {}),
        }
        for x in incident.receipts
    ]
