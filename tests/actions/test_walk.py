"""The walk over credentials, on random issuers that grow while they are walked and closed."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.actions._walk import Issued, Seen, walk
from clawback.errors import Unreachable
from clawback.model import CredentialGraph, CredentialNode, Known, Life

NAMES = [str(number) for number in range(24)]


def node(name: str) -> CredentialNode:
    return CredentialNode(kind="k", id=name, known=Known.ISSUER)


class World:
    """Credentials that were issued from others; `growth` are made one by one as we go, each from a living one."""

    def __init__(self, edges: set[tuple[str, str]], growth: list[tuple[str, str]], silent: set[str]) -> None:
        self.edges, self.growth, self.silent = set(edges), list(growth), silent
        self.dead: set[str] = set()
        self.asked: list[str] = []

    def _grow(self) -> None:
        if self.growth:
            parent, child = self.growth.pop(0)
            if parent not in self.dead:
                self.edges.add((parent, child))
                self.dead.discard(child)

    def issued_from(self, one: CredentialNode) -> Issued:
        self.asked.append(one.id)
        self._grow()
        if one.id in self.silent:
            raise Unreachable("silence")
        return Issued(nodes=tuple(node(child) for parent, child in sorted(self.edges) if parent == one.id))

    def life(self, one: CredentialNode) -> Seen:
        if one.id in self.silent:
            raise Unreachable("silence")
        return Seen(life=Life.GONE if one.id in self.dead else Life.ALIVE, how="asked")

    def reachable(self, seeds: set[str]) -> set[str]:
        seen, waiting = set(seeds), list(seeds)
        while waiting:
            here = waiting.pop()
            for parent, child in self.edges:
                if parent == here and child not in seen:
                    seen.add(child)
                    waiting.append(child)
        return seen


names = st.sampled_from(NAMES)
edges = st.sets(st.tuples(names, names), max_size=60)
growth = st.lists(st.tuples(names, names), max_size=30)
seeds = st.sets(names, min_size=1, max_size=4)


def walked(world: World, start: set[str], **bounds: int) -> CredentialGraph:
    return walk([node(name) for name in sorted(start)], world, **bounds)


@given(edges, seeds)
def test_it_finds_what_is_reachable_and_asks_about_each_once(links: set[tuple[str, str]], start: set[str]) -> None:
    world = World(links, [], set())
    graph = walked(world, start)
    assert {one.id for one in graph.nodes} == world.reachable(start)
    assert len(world.asked) == len(set(world.asked)) == len(graph.nodes)
    for one in graph.nodes:
        for parent in one.parents:
            assert (parent.removeprefix("k/"), one.id) in links


@given(edges, growth, seeds, st.sets(names, max_size=3))
@settings(max_examples=300)
def test_it_never_says_closed_while_something_reachable_lives(
    links: set[tuple[str, str]], more: list[tuple[str, str]], start: set[str], silent: set[str]
) -> None:
    """Walk, close what is alive, walk again, as the playbook does: it ends, and `closed` twice running is true."""
    world, known = World(links, more, silent), set(start)
    for _ in range(len(more) + len(NAMES) + 2):
        graph = walked(world, known)
        known |= {one.id for one in graph.nodes}
        if graph.closed:
            again = walked(world, known)
            if again.closed and {one.id for one in again.nodes} <= known:
                assert not (world.reachable(start) - world.dead), "it said closed"
                assert not silent & world.reachable(start)
                break
        world.dead |= {one.id for one in graph.alive}
    else:
        assert silent & world.reachable(start), "only silence keeps it from ending"


@given(edges, seeds, st.integers(1, 10), st.integers(0, 4))
def test_bounds_hold_and_what_they_cut_is_said(
    links: set[tuple[str, str]], start: set[str], most: int, deepest: int
) -> None:
    world = World(links, [], set())
    graph = walked(world, start, most=most, deepest=deepest)
    assert len(graph.nodes) <= most
    found = {one.id for one in graph.nodes}
    assert bool(graph.cut) == bool(world.reachable(start) - found)
    if graph.cut:
        world.dead |= set(NAMES)
        assert not walked(world, start, most=most, deepest=deepest).closed, "what was not looked at is not closed"


@given(edges, seeds, st.sets(names))
def test_a_silent_issuer_leaves_the_rest_walked_and_its_own_unknown(
    links: set[tuple[str, str]], start: set[str], silent: set[str]
) -> None:
    graph = walked(World(links, [], silent), start)
    for one in graph.nodes:
        assert (one.life is Life.UNKNOWN) == (one.id in silent)
        assert (one.key in graph.silent) == (one.id in silent)


@given(edges, seeds)
def test_the_journal_keeps_all_of_it(links: set[tuple[str, str]], start: set[str]) -> None:
    graph = walked(World(links, [], set()), start)
    assert CredentialGraph.from_record(json.loads(json.dumps(graph.as_record()))) == graph


def test_one_found_twice_keeps_both_parents_and_the_latest_issue() -> None:
    first = replace(node("a"), parents=("k/x",), issued_ns=5, facts={"one": "1"})
    other = replace(node("a"), parents=("k/y", "k/x"), issued_ns=9, facts={"one": "2", "two": "2"}, holders=("h",))
    both = first.merged(other)
    assert (both.parents, both.issued_ns, both.holders) == (("k/x", "k/y"), 9, ("h",))
    assert both.facts == {"one": "1", "two": "2"}
