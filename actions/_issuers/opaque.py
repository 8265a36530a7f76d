"""A credential of which no file here knows what is issued from it: closed by a step of its own, or else by its owner.

Where an action replaces its kind, that action's verified receipt is its closing. Else it is named, and stays open until
its owner has replaced it.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._issuers._kind import Kind, nothing_captured, nothing_issued
from clawback.actions._records import Records
from clawback.actions._walk import Seen
from clawback.errors import NotFound, Refused
from clawback.model import CredentialNode, CredentialRef, Known, Life, Phase, ReceiptState

__all__ = ["KIND"]

_NAME = "opaque"
# What has a file here, and a right that ends with the tokens that it is used with.
_ELSEWHERE = frozenset(
    {
        *("vault-token", "vault-wrapped", "vault-lease", "vault-approle", "aws-access-key", "aws-session"),
        *("vault-transit", "oidc-registration"),
    }
)


def _seeds(records: Records, agent: str, ref: CredentialRef) -> tuple[CredentialNode, ...]:
    if ref.kind in _ELSEWHERE:
        return ()
    return (
        CredentialNode(
            kind=_NAME,
            id=f"{agent}/{ref.name}",
            known=Known.INVENTORY,
            said=f"{agent} holds it as {ref.name}, of kind {ref.kind}",
            facts={"agent": agent, "name": ref.name, "of": ref.kind, "version": _version(records, agent, ref.name)},
            holders=(agent,),
        ),
    )


def _version(records: Records, agent: str, name: str) -> str:
    try:
        return records.world.secrets.version(agent, name)
    except NotFound:
        return ""


def _life(records: Records, node: CredentialNode) -> Seen:
    for receipt in records.ctx.incident.receipts:
        if (
            receipt.state is ReceiptState.VERIFIED
            and receipt.phase is Phase.ERADICATE
            and (receipt.params.get("agent"), receipt.params.get("name")) == (node.facts["agent"], node.facts["name"])
        ):
            return Seen(life=Life.GONE, how=f"{receipt.action} verified: {receipt.proof[:300]}")
    now = _version(records, node.facts["agent"], node.facts["name"])
    if now and now != node.facts.get("version", ""):
        return Seen(life=Life.GONE, how="its owner set another one since; the old one was not used")
    return Seen(
        life=Life.UNKNOWN,
        how=f"no issuer of {node.facts['of']} credentials is known here: its owner must replace it at its issuer, "
        f"then `clawback secret put {node.facts['agent']} {node.facts['name']}`",
    )


def _close(_records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    raise Refused(f"nothing here can close {node.id}", hint="its owner must replace it")


def _would(node: CredentialNode) -> tuple[str, ...]:
    return (f"  {node.id}: cannot be closed here",)


KIND = Kind(
    name=_NAME,
    order=90,
    reversible=False,
    seeds=_seeds,
    issued_from=nothing_issued,
    life=_life,
    close=_close,
    would=_would,
    capture=nothing_captured,
)
