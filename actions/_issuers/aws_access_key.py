"""An AWS access key, of whichever user: the agent's own, or one that was made with what it held."""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._credentials import watch_refused
from clawback.actions._issuers._calls import from_calls
from clawback.actions._issuers._kind import Kind
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.errors import NotFound, Refused
from clawback.model import CredentialNode, CredentialRef, Known, Life
from clawback.world import Trail

__all__ = ["KIND"]

_NAME = "aws-access-key"
_SECOND_NS = 1_000_000_000


def _seeds(_records: Records, agent: str, ref: CredentialRef) -> tuple[CredentialNode, ...]:
    key = ref.identifiers.get("access_key_id", "")
    if ref.kind != _NAME or not key:
        return ()
    return (
        CredentialNode(
            kind=_NAME,
            id=key,
            known=Known.INVENTORY,
            said=f"{agent} holds it as {ref.name}",
            facts={"agent": agent, "name": ref.name, "user": ref.identifiers.get("user", "")},
            holders=(agent,),
        ),
    )


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    user = node.facts.get("user", "")
    trail = records.trail_of(node.id)
    by_record = from_calls(records, trail.events, user=user, closed_ns=_closed_ns(records, node))
    # A key needs no permission to ask for its user's sessions, and they outlive it.
    sessions = CredentialNode(
        kind="aws-user-sessions", id=user, known=Known.ISSUER, said=f"{node.id} could ask for them"
    )
    nodes = [*by_record.nodes, *([sessions] if user else [])]
    nodes += _siblings(records, node, trail, {one.id for one in by_record.nodes})
    return Issued(nodes=tuple(nodes), missing=(*by_record.missing, *trail.cut))


def _siblings(records: Records, node: CredentialNode, trail: Trail, known: set[str]) -> list[CredentialNode]:
    """Keys of the same user, made since, of which the trail cannot tell yet, or no longer, who made them."""
    keys = records.world.cloud_records.keys(node.facts.get("user", ""))
    born = keys.get(node.id, ("", 0))[1]
    return [
        CredentialNode(
            kind=_NAME,
            id=key,
            known=Known.ISSUER,
            said=f"IAM has it as a key of {node.facts['user']} made since {node.id}, and it is not ours",
            facts={"user": node.facts["user"]},
            issued_ns=created,
        )
        for key, (_, created) in keys.items()
        if key not in known | {node.id} | records.reissued and 0 < born <= created and not trail.covers(created)
    ]


def _closed_ns(records: Records, node: CredentialNode) -> int:
    """When it was set Inactive, if it still is; rather a second too late, for what it made before counts."""
    if records.world.cloud_records.keys(node.facts.get("user", "")).get(node.id, ("", 0))[0] == "Active":
        return 0
    closed = [
        receipt.applied_ns - records.skew_ns + _SECOND_NS
        for receipt in records.ctx.incident.receipts
        if receipt.applied_ns
        and (
            (receipt.action == "aws.rotate-key" and receipt.outcome.get("replaced") == node.id)
            or (receipt.action == "credential.refuse" and receipt.params.get("id") == node.id)
        )
    ]
    return max(closed, default=0)


def _life(records: Records, node: CredentialNode) -> Seen:
    status = records.world.cloud_records.keys(node.facts.get("user", "")).get(node.id, ("absent", 0))[0]
    if status == "Active":
        return Seen(life=Life.ALIVE, how="IAM lists it as Active")
    value = records.aws_value(node.facts.get("agent", ""), node.facts.get("name", ""), node.id)
    if value:
        cloud = records.world.cloud
        refused, answer = watch_refused(lambda: cloud.works(value), cloud.settle)
        if not refused:
            return Seen(life=Life.ALIVE, how=f"used: accepted ({answer}), though IAM lists it as {status}")
        return Seen(life=Life.REFUSED, how=f"used: refused ({answer}); IAM lists it as {status}")
    return Seen(life=Life.GONE, how=f"IAM lists it as {status}; its value was not at hand to be used")


def _capture(records: Records, node: CredentialNode, _turn: int) -> dict[str, Any]:
    keys = records.world.cloud_records.keys(node.facts["user"])
    return {"user": node.facts["user"], "status": keys.get(node.id, ("absent", 0))[0]}


def _close(records: Records, node: CredentialNode, captured: Record) -> dict[str, Any]:
    if node.id in records.reissued:
        raise Refused(f"{node.id} is the key that the agent was given in this incident")
    records.world.cloud.access_key_deactivate(str(captured["user"]), node.id)
    return {"access_key_id": node.id, "closed_ns": records.issuer_ns()}


def _reopen(records: Records, node: CredentialNode, captured: Record) -> None:
    if captured["status"] == "Active":
        try:
            records.world.cloud.access_key_activate(str(captured["user"]), node.id)
        except NotFound:
            raise Refused(f"{node.id} was deleted and cannot be set Active again") from None


def _would(node: CredentialNode) -> tuple[str, ...]:
    return (f"- {node.facts.get('user', '')}: {node.id} Active", f"+ {node.id} Inactive")


KIND = Kind(
    name=_NAME,
    order=40,
    reversible=True,
    seeds=_seeds,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=_would,
    capture=_capture,
    reopen=_reopen,
)
