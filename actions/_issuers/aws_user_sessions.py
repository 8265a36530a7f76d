"""Sessions that an IAM user got for itself (GetSessionToken): they outlive the key that asked for them."""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._issuers import _sessions as sessions
from clawback.actions._issuers._calls import from_calls
from clawback.actions._issuers._kind import Kind, nothing_seeded
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.model import CredentialNode

__all__ = ["KIND"]


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    events = sessions.calls(records, node, user=node.id)
    closed = sessions.closed_ns(records, f"user/{node.id}")
    issued = from_calls(records, events, user=node.id, closed_ns=closed)
    return Issued(nodes=issued.nodes, missing=(*issued.missing, *records.trail.cut))


def _life(records: Records, node: CredentialNode) -> Seen:
    return sessions.life(records, node, f"user/{node.id}")


def _close(records: Records, node: CredentialNode, captured: Record) -> dict[str, Any]:
    return sessions.close(records, node, captured, f"user/{node.id}")


def _reopen(records: Records, node: CredentialNode, captured: Record) -> None:
    sessions.reopen(records, f"user/{node.id}", captured)


KIND = Kind(
    name="aws-user-sessions",
    order=60,
    reversible=True,
    seeds=nothing_seeded,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=lambda node: (f"+ user/{node.id}: inline policy: deny * to sessions issued until now",),
    capture=sessions.capture,
    reopen=_reopen,
    sessions=True,
)
