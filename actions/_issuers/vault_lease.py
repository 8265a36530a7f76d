"""A Vault lease: a database login, a certificate and the like, which its backend ends when it is revoked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from clawback.action import Record
from clawback.actions._issuers._kind import Kind, nothing_captured, nothing_issued
from clawback.actions._records import Records
from clawback.actions._walk import Seen
from clawback.model import CredentialNode, CredentialRef, Known, Life

__all__ = ["KIND"]

_NAME = "vault-lease"


def _seeds(records: Records, agent: str, ref: CredentialRef) -> tuple[CredentialNode, ...]:
    """The lease that it was given. Others under its prefix may be somebody else's: the audit log tells those."""
    lease = ref.identifiers.get("lease", "")
    if ref.kind != _NAME:
        return ()
    leases = [lease] if lease else records.world.vault.leases(ref.identifiers.get("prefix", "").strip("/"))
    return tuple(
        CredentialNode(
            kind=_NAME, id=one, known=Known.INVENTORY, said=f"{agent} holds it as {ref.name}", holders=(agent,)
        )
        for one in leases
    )


def _life(records: Records, node: CredentialNode) -> Seen:
    facts = records.world.vault_records.lease(node.id)
    if facts is None:
        return Seen(life=Life.GONE, how="the issuer has no such lease in force")
    until = str(facts.get("expire_time") or "")
    try:
        until = f"{datetime.fromisoformat(until):%Y-%m-%dT%H:%M:%SZ}"
    except ValueError:
        until = "an unknown time"
    return Seen(life=Life.ALIVE, how=f"in force until {until}")


def _close(records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    records.world.vault_records.lease_revoke(node.id)
    return {"lease": node.id}


KIND = Kind(
    name=_NAME,
    order=30,
    reversible=False,
    seeds=_seeds,
    issued_from=nothing_issued,
    life=_life,
    close=_close,
    would=lambda node: (f"- lease {node.id}",),
    capture=nothing_captured,
)
