"""A Vault batch token: it has no accessor, and nothing revokes it. It ends with its parent; an orphan, by its time.

Known by the audit log alone, by its HMAC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from clawback.action import Record
from clawback.actions._issuers._audited import from_batch
from clawback.actions._issuers._kind import Kind, nothing_captured, nothing_seeded
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.errors import Refused
from clawback.model import CredentialNode, Life

__all__ = ["KIND"]

_WITH_A_PARENT = "auth/token/create"
_SECOND_NS = 1_000_000_000


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    log = records.audit
    return from_batch(records, log, node, node.facts["hashed"]) if log else Issued()


def _life(records: Records, node: CredentialNode) -> Seen:
    if node.expires_ns and node.expires_ns + _SECOND_NS < time.time_ns():
        return Seen(life=Life.GONE, how="its time is over")
    ends = f"{datetime.fromtimestamp(node.expires_ns / 1e9, UTC):%Y-%m-%dT%H:%M:%SZ}" if node.expires_ns else "never"
    if node.facts["path"] != _WITH_A_PARENT:
        return Seen(life=Life.UNKNOWN, how=f"an orphaned batch token, which nothing revokes: it ends {ends}")
    tokens = [kind_id.partition("/") for kind_id in node.parents]
    live = [name for kind, _, name in tokens if kind == "vault-token" and records.world.vault.token_lookup(name)]
    if live:
        return Seen(life=Life.UNKNOWN, how=f"it ends with its parent, of which {live[0]} lives, or {ends}")
    return Seen(life=Life.GONE, how="its parent is revoked, and it with it")


def _close(_records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    raise Refused(f"nothing revokes the batch token {node.id}", hint="it ends with its parent, or by its time")


KIND = Kind(
    name="vault-batch-token",
    order=90,
    reversible=False,
    seeds=nothing_seeded,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=lambda node: (f"  batch token {node.id}: cannot be closed, and ends by itself",),
    capture=nothing_captured,
)
