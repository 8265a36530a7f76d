"""An AppRole secret-id, held by the agent or generated with its tokens: with it and the role's id one can log in.

Logins stand in the audit log under the secret-id's HMAC; of one that is held, the server is asked for it by its value.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._issuers._audited import from_log
from clawback.actions._issuers._kind import Kind, nothing_captured
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.model import CredentialNode, CredentialRef, Known, Life

__all__ = ["KIND"]


_NAME = "approle-secret-id"


def _seeds(_records: Records, agent: str, ref: CredentialRef) -> tuple[CredentialNode, ...]:
    accessor, role = ref.identifiers.get("accessor", ""), ref.identifiers.get("role", "")
    if ref.kind != "vault-approle" or not accessor or not role:
        return ()
    path = f"auth/{ref.identifiers.get('mount') or 'approle'}/role/{role}"
    return (
        CredentialNode(
            kind=_NAME,
            id=f"{path}/{accessor}",
            known=Known.INVENTORY,
            said=f"{agent} holds it as {ref.name}",
            facts={"role": path, "accessor": accessor, "agent": agent, "name": ref.name},
            holders=(agent,),
        ),
    )


def _login(records: Records, node: CredentialNode) -> str:
    """Its HMAC in the audit log; empty where neither the log that has it generated nor its value is at hand."""
    if node.facts.get("login"):
        return node.facts["login"]
    held = records.ref(node.facts.get("agent", ""), node.facts.get("name", ""))
    if held is None:
        return ""
    store = records.world.secrets
    same = held.identifiers.get("accessor") == node.facts["accessor"]
    value = store.current(node.facts["agent"], held.name) if same else store.old(node.facts["agent"], held.name)
    return records.hash(value) if value else ""


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    log = records.audit
    if log is None:
        return Issued(missing=("no Vault audit log is configured: logins with its secret-ids are not on record",))
    return from_log(records, log, node, login=_login(records, node))


def _life(records: Records, node: CredentialNode) -> Seen:
    if node.facts["accessor"] in records.world.vault_records.secret_ids(node.facts["role"]):
        return Seen(life=Life.ALIVE, how="the issuer lists its accessor")
    return Seen(life=Life.GONE, how="the issuer lists its accessor no longer")


def _close(records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    records.world.vault_records.secret_id_destroy(node.facts["role"], node.facts["accessor"])
    return {"accessor": node.facts["accessor"]}


KIND = Kind(
    name=_NAME,
    order=10,
    reversible=False,
    seeds=_seeds,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=lambda node: (f"- secret-id {node.facts['accessor']} of {node.facts['role']}",),
    capture=nothing_captured,
)
