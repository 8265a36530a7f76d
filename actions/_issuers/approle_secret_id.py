"""An AppRole secret-id that was generated with one of the agent's tokens: with it and the role's id one can log in."""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._issuers._audited import from_log
from clawback.actions._issuers._kind import Kind, nothing_captured, nothing_seeded
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.model import CredentialNode, Life

__all__ = ["KIND"]


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    log = records.audit
    if log is None:
        return Issued(missing=("no Vault audit log is configured: logins with its secret-ids are not on record",))
    return from_log(records, log, node, login=node.facts.get("login", ""))


def _life(records: Records, node: CredentialNode) -> Seen:
    if node.facts["accessor"] in records.world.vault_records.secret_ids(node.facts["role"]):
        return Seen(life=Life.ALIVE, how="the issuer lists its accessor")
    return Seen(life=Life.GONE, how="the issuer lists its accessor no longer")


def _close(records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    records.world.vault_records.secret_id_destroy(node.facts["role"], node.facts["accessor"])
    return {"accessor": node.facts["accessor"]}


KIND = Kind(
    name="approle-secret-id",
    order=10,
    reversible=False,
    seeds=nothing_seeded,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=lambda node: (f"- secret-id {node.facts['accessor']} of {node.facts['role']}",),
    capture=nothing_captured,
)
