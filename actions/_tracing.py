"""Walks the credentials of an incident: from the inventory and from earlier walks, by the kinds there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from clawback.action import Context
from clawback.actions._issuers import kinds
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen, walk
from clawback.model import CredentialGraph, CredentialNode, CredentialRef, Life, Receipt

__all__ = ["Asked", "found_before", "trace"]

TRACE = "credential.trace"


class Asked:
    """`_walk.Issuer`, each node by its kind."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def issued_from(self, node: CredentialNode) -> Issued:
        """By the node's kind; of one that no file knows, nothing is known."""
        kind = kinds().get(node.kind)
        return kind.issued_from(self._records, node) if kind else Issued()

    def life(self, node: CredentialNode) -> Seen:
        """By the node's kind."""
        kind = kinds().get(node.kind)
        if kind is None:
            return Seen(life=Life.UNKNOWN, how="nothing here can look at it or close it: its owner must")
        return kind.life(self._records, node)


def trace(ctx: Context, agent: str) -> CredentialGraph:
    """Everything that came of what the agent, and those in scope with it, held."""
    records = Records(ctx)
    return replace(walk(_seeds(records, agent), Asked(records)), until_ns=records.until_ns)


def found_before(ctx: Context, agent: str) -> dict[str, CredentialNode]:
    """What this incident's earlier traces found, by key; what a later one said last counts."""
    found: dict[str, CredentialNode] = {}
    for receipt in _traces(ctx.incident.receipts, agent):
        for node in CredentialGraph.from_record(receipt.outcome).nodes:
            found[node.key] = node.merged(found[node.key]) if node.key in found else node
    return found


def _traces(receipts: Iterable[Receipt], agent: str) -> list[Receipt]:
    traces = [x for x in receipts if x.action == TRACE and x.params.get("agent") == agent]
    return sorted(traces, key=lambda receipt: int(receipt.params.get("turn", 0)))


def _seeds(records: Records, agent: str) -> list[CredentialNode]:
    """The inventory as the scope recorded it, for what is held by now may have been reissued; and what was found.

    What was found stays a seed: the record that led to it may end with the credential it came from.
    """
    held = _scoped(records, agent)
    if held is None:
        held = [*_replaced(records), *((agent, ref) for ref in records.world.secrets.refs(agent))]
    seeds = [node for who, ref in held for node in _of(records, who, ref)]
    known = found_before(records.ctx, agent).values()
    return [*(replace(node, life=Life.UNKNOWN, seen="") for node in known), *seeds]


def _of(records: Records, agent: str, ref: CredentialRef) -> list[CredentialNode]:
    if {ref.identifiers.get("accessor"), ref.identifiers.get("access_key_id")} & records.reissued:
        return []
    return [node for kind in kinds().values() for node in kind.seeds(records, agent, ref)]


def _scoped(records: Records, agent: str) -> list[tuple[str, CredentialRef]] | None:
    """(agent, credential) as the scope has them; None where this incident has no scope."""
    for receipt in records.ctx.incident.receipts:
        if receipt.action == "incident.scope" and receipt.params.get("agent") == agent and receipt.outcome:
            held = [(agent, _ref(record)) for record in receipt.outcome.get("credentials", ())]
            for other in receipt.outcome.get("related", ()):
                held += [(str(other["id"]), _ref(record)) for record in other.get("credentials", ())]
            return held
    return None


def _replaced(records: Records) -> list[tuple[str, CredentialRef]]:
    """What this incident's own actions captured before they replaced it."""
    return [
        (str(receipt.params["agent"]), _ref(receipt.captured["ref"]))
        for receipt in records.ctx.incident.receipts
        if receipt.action in {"vault.rotate-token", "aws.rotate-key"} and receipt.captured.get("ref")
    ]


def _ref(record: Mapping[str, Any]) -> CredentialRef:
    return CredentialRef(kind=str(record["kind"]), name=str(record["name"]), identifiers=dict(record["identifiers"]))
