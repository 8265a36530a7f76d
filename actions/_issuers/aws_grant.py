"""A right that was given to a user or role with what the agent held: an inline policy, or one attached."""

from __future__ import annotations

from typing import Any

from clawback.action import Record
from clawback.actions._credentials import sealed, unsealed
from clawback.actions._issuers._kind import Kind, nothing_issued, nothing_seeded
from clawback.actions._records import Records, digest
from clawback.actions._walk import Seen
from clawback.model import CredentialNode, Life

__all__ = ["KIND"]


def _stands(records: Records, node: CredentialNode) -> bool:
    facts, asked = node.facts, records.world.cloud_records
    if attached := facts.get("attached"):
        return attached in asked.attached(facts["principal"])
    document = records.inline(facts["principal"]).get(facts["policy"])
    return document is not None and digest(document) == facts["set"]


def _life(records: Records, node: CredentialNode) -> Seen:
    if _stands(records, node):
        return Seen(life=Life.ALIVE, how="it is in force as it was given")
    return Seen(life=Life.GONE, how="it is no longer in force")


def _capture(records: Records, node: CredentialNode, _turn: int) -> dict[str, Any]:
    if not _stands(records, node):
        return {"document": ""}
    if node.facts.get("attached"):
        return {"document": "attached"}
    asked = records.world.cloud_records.inline(node.facts["principal"])
    return {"document": sealed(asked[node.facts["policy"]])}


def _close(records: Records, node: CredentialNode, _captured: Record) -> dict[str, Any]:
    facts, asked = node.facts, records.world.cloud_records
    if facts.get("attached"):
        asked.detach(facts["principal"], facts["attached"])
    elif _stands(records, node):  # somebody else's of that name, put since, is not ours to take
        asked.inline_delete(facts["principal"], facts["policy"])
    return {"taken": node.id, "closed_ns": records.issuer_ns()}


def _reopen(records: Records, node: CredentialNode, captured: Record) -> None:
    facts, asked = node.facts, records.world.cloud_records
    if captured["document"] == "attached":
        asked.attach(facts["principal"], facts["attached"])
    elif captured["document"]:
        asked.inline_put(facts["principal"], facts["policy"], unsealed(str(captured["document"])))


def _would(node: CredentialNode) -> tuple[str, ...]:
    return (f"- {node.facts['principal']}: policy {node.facts.get('policy') or node.facts.get('attached')}",)


KIND = Kind(
    name="aws-grant",
    order=46,
    reversible=True,
    seeds=nothing_seeded,
    issued_from=nothing_issued,
    life=_life,
    close=_close,
    would=_would,
    capture=_capture,
    reopen=_reopen,
)
