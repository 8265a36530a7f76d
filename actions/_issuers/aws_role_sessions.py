"""Sessions of an IAM role: the agent's own, and those of every role that was become from there."""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._credentials import key_id
from clawback.actions._issuers import _sessions as sessions
from clawback.actions._issuers._calls import from_calls
from clawback.actions._issuers._kind import Kind
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.errors import NotFound
from clawback.model import CredentialNode, CredentialRef, Known

__all__ = ["KIND"]


def _seeds(records: Records, agent: str, ref: CredentialRef) -> tuple[CredentialNode, ...]:
    role = ref.identifiers.get("role", "")
    if ref.kind != "aws-session" or not role:
        return ()
    facts = {"agent": agent, "name": ref.name}
    try:
        # Which session it is stands in its value alone; the id is no secret.
        facts["access_key_id"] = key_id(records.world.secrets.current(agent, ref.name))
    except NotFound:
        pass
    return (
        CredentialNode(
            kind="aws-role-sessions",
            id=role,
            known=Known.INVENTORY,
            said=f"{agent} holds one as {ref.name}",
            facts=facts,
            holders=(agent,),
        ),
    )


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    events = sessions.calls(records, node, issuer=node.id)
    issued = from_calls(records, events, closed_ns=sessions.closed_ns(records, node.id))
    return Issued(nodes=issued.nodes, missing=(*issued.missing, *records.trail.cut))


def _life(records: Records, node: CredentialNode) -> Seen:
    return sessions.life(records, node, node.id)


def _close(records: Records, node: CredentialNode, captured: Record) -> dict[str, Any]:
    return sessions.close(records, node, captured, node.id)


def _reopen(records: Records, node: CredentialNode, captured: Record) -> None:
    sessions.reopen(records, node.id, captured)


KIND = Kind(
    name="aws-role-sessions",
    order=50,
    reversible=True,
    seeds=_seeds,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=lambda node: (f"+ {node.id}: inline policy: deny * to sessions issued until now, whoever holds them",),
    capture=sessions.capture,
    reopen=_reopen,
    sessions=True,
)
