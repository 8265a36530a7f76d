"""A Vault token, by its accessor. Its children die with it; orphans, secret-ids and what comes of those do not.

What a token issued stands in the audit device's log alone. Without the log there remain: tokens whose metadata names
the agent, and orphans made since the agent got its token, by a way that its token was allowed. Who of several made one
is not known then: it is named, left alone, and keeps the incident open until somebody looked.
"""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._issuers._audited import from_log
from clawback.actions._issuers._kind import Kind
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.errors import Refused
from clawback.model import CredentialNode, CredentialRef, Known, Life

__all__ = ["KIND"]

_NAME = "vault-token"
_SECOND_NS = 1_000_000_000


def _seeds(_records: Records, agent: str, ref: CredentialRef) -> tuple[CredentialNode, ...]:
    accessor = ref.identifiers.get("accessor", "")
    if ref.kind not in (_NAME, "vault-wrapped") or not accessor:
        return ()
    return (
        CredentialNode(
            kind=_NAME,
            id=accessor,
            known=Known.INVENTORY,
            said=f"{agent} holds it as {ref.name}",
            facts={"agent": agent, "name": ref.name},
            holders=(agent,),
        ),
    )


def _issued_from(records: Records, node: CredentialNode) -> Issued:
    if node.facts.get("doubt"):
        return Issued()  # whose it is comes first
    by_name = _named_after(records, node)
    log = records.audit
    if log is not None:
        issued = from_log(records, log, node, actor=records.hash(node.id))
        return Issued(nodes=(*issued.nodes, *by_name), missing=issued.missing)
    missing = (
        "no Vault audit log is configured: which leases, secret-ids and orphan tokens it issued is not on record",
    )
    doubtful = _could_have_made(records, node, {one.id for one in by_name})
    return Issued(nodes=(*by_name, *doubtful), missing=missing)


def _named_after(records: Records, node: CredentialNode) -> tuple[CredentialNode, ...]:
    """Tokens whose metadata names the agent: they were issued for it, or by it. What we issued to it is not meant."""
    agent = node.facts.get("agent", "")
    if not agent:
        return ()
    return tuple(
        CredentialNode(
            kind=_NAME,
            id=accessor,
            known=Known.ISSUER,
            said=f"its metadata names {agent}",
            facts={"agent_named": agent},
            expires_ns=_expires(facts),
        )
        for accessor in records.world.vault.token_find({"agent": agent})
        if accessor != node.id
        and accessor not in records.reissued
        and (facts := records.world.vault.token_lookup(accessor)) is not None
        and "clawback_step" not in facts["meta"]
    )


def _could_have_made(records: Records, node: CredentialNode, known: set[str]) -> tuple[CredentialNode, ...]:
    ours = records.world.vault.token_lookup(node.id)
    if ours is None:
        return ()  # it is dead: what it could have made was looked up while it lived, and is a seed of later walks
    candidates: list[tuple[str, dict[str, Any]]] = []
    for accessor in records.accessors:
        made = records.world.vault.token_made(accessor)
        if (
            made is not None
            and accessor not in known | {node.id}
            and accessor not in records.reissued
            and str(made.get("path", "")).startswith("auth/token/create")
            and int(made.get("creation_time") or 0) >= int(ours.get("creation_time") or 0)
            and "clawback_step" not in made["meta"]
            and (facts := records.world.vault.token_lookup(accessor)) is not None
            and facts.get("orphan")
        ):
            candidates.append((accessor, facts))
    paths = sorted({str(facts["path"]) for _, facts in candidates})
    allowed = records.world.vault_records.may(node.id, paths) if paths else {}
    return tuple(
        CredentialNode(
            kind=_NAME,
            id=accessor,
            known=Known.ISSUER,
            said=f"an orphan made at {facts['path']}, which {node.id} was allowed to",
            facts={"doubt": f"made at {facts['path']} by somebody who was allowed to, as this token was"},
            expires_ns=_expires(facts),
        )
        for accessor, facts in candidates
        if allowed.get(str(facts["path"]))
    )


def _expires(facts: dict[str, Any]) -> int:
    left = int(facts.get("ttl") or 0)
    return (int(facts.get("creation_time") or 0) + int(facts.get("creation_ttl") or 0)) * _SECOND_NS if left else 0


def _life(records: Records, node: CredentialNode) -> Seen:
    facts = records.world.vault.token_lookup(node.id)
    value = records.token_value(node.facts.get("agent", ""), node.facts.get("name", ""), node.id)
    if value and (facts is None or not facts.get("num_uses")):  # trying one with few uses would use one up
        accepted, answer = records.world.vault.token_works(value)
        if accepted:
            return Seen(life=Life.ALIVE, how=f"used: accepted ({answer})")
        if facts is None:
            return Seen(life=Life.REFUSED, how=f"used: refused ({answer}); its accessor is unknown to the issuer")
        return Seen(life=Life.UNKNOWN, how=f"used: refused ({answer}), and the issuer still lists it")
    if facts is None:
        return Seen(life=Life.GONE, how="its accessor is unknown to the issuer")
    if doubt := node.facts.get("doubt"):
        return _doubted(records, node, doubt)
    return Seen(life=Life.ALIVE, how=f"the issuer knows it: {facts['ttl']} s left")


def _doubted(records: Records, node: CredentialNode, doubt: str) -> Seen:
    """A log that is configured since may name its maker: another's is nothing of the agent's."""
    hashed = records.hash(node.id) if records.audit else ""
    makers = (
        {entry.actor_hash for entry in records.audit.entries if entry.token_hash == hashed} if records.audit else ()
    )
    if not makers:
        how = f"alive, and {doubt}: revoke it, or set vault.audit_log to a log that names its maker"
        return Seen(life=Life.UNKNOWN, how=how)
    ours = {records.hash(accessor) for accessor in records.tokens}
    if ours & makers:
        return Seen(life=Life.ALIVE, how="the audit log names a token of the agent's as its maker")
    return Seen(life=Life.GONE, how="alive, and no matter of this incident: the audit log names another maker")


def _capture(records: Records, node: CredentialNode, _turn: int) -> dict[str, Any]:
    """What the issuer knows of it, by which its holder may be given another one."""
    return {"facts": records.world.vault.token_lookup(node.id)}


def _close(records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    if node.id in records.reissued:
        raise Refused(f"token {node.id} is the one that the agent was given in this incident")
    records.world.vault.token_revoke(node.id)
    return {"accessor": node.id}


KIND = Kind(
    name=_NAME,
    order=20,
    reversible=False,
    seeds=_seeds,
    issued_from=_issued_from,
    life=_life,
    close=_close,
    would=lambda node: (f"- token {node.id} and all its children and leases",),
    capture=_capture,
)
