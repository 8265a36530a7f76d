"""Walks from what an agent held to everything issued from it, until nothing new is found. Pure: it only asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from clawback.errors import Unreachable
from clawback.model import CredentialGraph, CredentialNode, Life

__all__ = ["MOST_DEEP", "MOST_NODES", "Issued", "Issuer", "Seen", "walk"]

MOST_NODES = 200
MOST_DEEP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What a node's issuer knows to have come from it; `missing` says what its records do not tell."""

    nodes: tuple[CredentialNode, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of one node, and how."""

    life: Life
    how: str


class Issuer(Protocol):
    """Whom the walk asks. `Unreachable` from either: the node is unknown, and the rest is walked."""

    def issued_from(self, node: CredentialNode) -> Issued:
        """Everything that was issued directly from this credential."""
        ...

    def life(self, node: CredentialNode) -> Seen:
        """Whether it still works."""
        ...


def walk(
    seeds: Iterable[CredentialNode], issuer: Issuer, *, most: int = MOST_NODES, deepest: int = MOST_DEEP
) -> CredentialGraph:
    """The graph from these seeds. Each node is asked about once, dead ones too: what they issued may outlive them.

    Lives are looked at last and in order of finding, when all parents are known. Bounds that were hit are in `cut`.
    """
    found: dict[str, CredentialNode] = {}
    depth: dict[str, int] = {}
    silent: dict[str, str] = {}
    missing: dict[str, None] = {}
    left_out: set[str] = set()
    too_deep: set[str] = set()
    waiting: deque[str] = deque()

    def meet(node: CredentialNode, at: int) -> None:
        if (known := found.get(node.key)) is not None:
            found[node.key] = known.merged(node)
        elif len(found) >= most:
            left_out.add(node.key)
        else:
            found[node.key], depth[node.key] = node, at
            waiting.append(node.key)

    for seed in seeds:
        meet(seed, 0)
    while waiting:
        key = waiting.popleft()
        try:
            issued = issuer.issued_from(found[key])
        except Unreachable as error:
            silent[key] = error.message
            continue
        missing |= dict.fromkeys(issued.missing)
        for node in issued.nodes:
            child = replace(node, parents=tuple(dict.fromkeys((*node.parents, key))))
            if depth[key] >= deepest and child.key not in found:
                too_deep.add(key)
            else:
                meet(child, depth[key] + 1)

    nodes = tuple(_looked_at(node, issuer, silent) for node in found.values())
    cut = []
    if left_out:
        cut.append(f"more than {most} credentials: {len(left_out)} or more were not followed")
    if too_deep:
        cut.append(f"deeper than {deepest}: what came from {', '.join(sorted(too_deep)[:5])} was not followed")
    return CredentialGraph(nodes=nodes, cut=tuple(cut), missing=tuple(missing), silent=tuple(silent))


def _looked_at(node: CredentialNode, issuer: Issuer, silent: dict[str, str]) -> CredentialNode:
    """Its life; a closed one of which it is not known what it issued is not closed."""
    try:
        seen = issuer.life(node)
    except Unreachable as error:
        silent[node.key] = error.message
        return replace(node, life=Life.UNKNOWN, seen=error.message)
    if node.key in silent and seen.life is not Life.ALIVE:
        return replace(node, life=Life.UNKNOWN, seen=f"{seen.how}; what came from it is unread: {silent[node.key]}")
    return replace(node, life=seen.life, seen=seen.how)
