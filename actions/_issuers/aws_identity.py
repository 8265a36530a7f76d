"""An IAM user or role that was made with what the agent held: it is refused everything, and left for a person to see.

Its keys and sessions are nodes of their own. Deleting it would destroy what shows how it was made.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._issuers import _sessions as sessions
from clawback.actions._issuers._kind import Kind, nothing_seeded
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.model import CredentialNode, Known, Life

__all__ = ["KIND"]

_DENY = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "ClawbackRefuse", "Effect": "Deny", "Action": "*", "Resource": "*"}],
}


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    kind, _, name = node.id.partition("/")
    found: list[tuple[str, str, dict[str, str]]]
    if kind == "user":
        found = [("aws-access-key", key, {"user": name}) for key in records.world.cloud_records.keys(name)]
        found.append(("aws-user-sessions", name, {}))
    else:
        found = [("aws-role-sessions", arn, {}) for arn in records.roles if arn.rpartition("/")[2] == name]
    said = f"IAM has it under {node.id}, which was made with what the agent held"
    return Issued(
        nodes=tuple(
            CredentialNode(kind=kind, id=one, known=Known.ISSUER, said=said, facts=facts) for kind, one, facts in found
        )
    )


def _life(records: Records, node: CredentialNode) -> Seen:
    if not records.world.cloud_records.exists(node.id):
        return Seen(life=Life.GONE, how=f"IAM has no {node.id}")
    if _DENY in records.inline(node.id).values():
        return Seen(life=Life.GONE, how="an explicit deny of everything is in place")
    return Seen(life=Life.ALIVE, how="IAM has it, and nothing refuses it")


def _close(records: Records, node: CredentialNode, captured: Record) -> dict[str, Any]:
    records.world.cloud_records.inline_put(node.id, str(captured["policy"]), _DENY)
    return {"policy": captured["policy"], "closed_ns": records.issuer_ns()}


def _reopen(records: Records, node: CredentialNode, captured: Record) -> None:
    records.world.cloud_records.inline_delete(node.id, str(captured["policy"]))


KIND = Kind(
    name="aws-identity",
    order=42,
    reversible=True,
    seeds=nothing_seeded,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=lambda node: (f"+ {node.id}: inline policy: deny *",),
    capture=sessions.capture,
    reopen=_reopen,
)
