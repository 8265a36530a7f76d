"""A role's trust policy as somebody set it with what the agent held: a way back in, for as long as it stands."""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._credentials import sealed, unsealed
from clawback.actions._issuers._kind import Kind, nothing_issued, nothing_seeded
from clawback.actions._records import Records, digest
from clawback.actions._walk import Seen
from clawback.actions.aws_close_trust import CLOSED
from clawback.model import CredentialNode, Life

__all__ = ["KIND"]


def _life(records: Records, node: CredentialNode) -> Seen:
    role = f"role/{node.id}"
    if not records.world.cloud_records.exists(role):
        return Seen(life=Life.GONE, how=f"IAM has no {role}")
    present = digest(records.world.cloud.trust(role))
    if present == node.facts.get("set"):
        return Seen(life=Life.ALIVE, how="it trusts whom it was made to trust with what the agent held")
    for receipt in records.ctx.incident.receipts:
        if (
            receipt.action == "aws.close-trust"
            and str(receipt.captured.get("role", "")).rpartition("/")[2] == node.id
            and digest(unsealed(str(receipt.captured["trust"]))) == node.facts.get("set")
        ):
            # Recovery would put back what was captured, and that is the agent's own doing.
            return Seen(
                life=Life.UNKNOWN,
                how="closed, and what was there when it was closed, and would be put back, had been set with what the "
                "agent held: a person must say whom it shall trust",
            )
    word = "it trusts nobody" if present == digest(CLOSED) else "what was set is no longer in force"
    return Seen(life=Life.GONE, how=word)


def _capture(records: Records, node: CredentialNode, _turn: int) -> dict[str, Any]:
    return {"trust": sealed(records.world.cloud.trust(f"role/{node.id}"))}


def _close(records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    records.world.cloud.trust_set(f"role/{node.id}", CLOSED)
    return {"role": node.id, "closed_ns": records.issuer_ns()}


def _reopen(records: Records, node: CredentialNode, captured: Record) -> None:
    records.world.cloud.trust_set(f"role/{node.id}", unsealed(str(captured["trust"])))


KIND = Kind(
    name="aws-trust",
    order=44,
    reversible=True,
    seeds=nothing_seeded,
    issued_from=nothing_issued,
    life=_life,
    close=_close,
    would=lambda node: (f"- role/{node.id}: the trust policy that was set", f"+ role/{node.id}: trusts nobody"),
    capture=_capture,
    reopen=_reopen,
)
