"""Sub-agents and sharers: contained with the agent, each by steps of its own, and let go when it is clean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clawback.journal import Journal
from clawback.model import AgentInfo, CredentialRef, Enforcement, IncidentStatus, Level, ReceiptState
from clawback.response import undo

from .test_contain_rogue_agent import Case

V = ReceiptState.VERIFIED


def also(there: Any, name: str, *, parent: str = "", credentials: tuple[CredentialRef, ...] = ()) -> AgentInfo:
    core = there.core
    core.known[name] = replace(
        core.known["a"], agent=name, instance=f"i-{name}", parent=parent, credentials=credentials, policy_version=1
    )
    core.enforced[name] = {}
    for ref in credentials:
        there.secrets.put(name, ref, f"value-{name}-{ref.identifiers['accessor']}")
    return core.known[name]


@pytest.fixture
def case(journal: Journal, there: Any) -> Case:
    also(there, "sub", parent="a")
    shared = replace(there.core.known["a"].credentials[0], name="mine")
    also(there, "sharer", credentials=(shared,))
    also(there, "bystander")
    return Case(journal, there)


def test_they_are_contained_before_anything_is_taken_and_let_go_at_the_end(case: Case) -> None:
    ended = case.run()
    assert [(x.action, x.params, x.error or x.proof) for x in ended.receipts if x.state is not V] == []
    assert ended.status is IncidentStatus.CLOSED
    order = [(x.action, x.params.get("agent")) for x in sorted(ended.receipts, key=lambda x: x.verified_ns)]
    for other in ("sub", "sharer"):
        contained = max(order.index((action, other)) for action in ("agent.freeze", "agent.isolate"))
        assert contained < order.index(("vault.rotate-token", "a"))
        assert order.index(("policy.validate", "a")) < order.index(("agent.release", other))
        assert case.there.core.known[other].hold is None
    assert not [receipt for receipt in ended.receipts if receipt.params.get("agent") == "bystander"]


def test_a_sharer_gets_a_token_of_its_own_and_starts_anew_with_it(case: Case) -> None:
    case.run()
    held = {name: case.there.secrets.refs(name)[0].identifiers["accessor"] for name in ("a", "sharer")}
    assert held["a"] != held["sharer"]
    assert set(held.values()) == set(case.there.vault.live)
    assert case.there.core.known["sharer"].instance != "i-sharer"
    assert case.there.core.known["sub"].instance == "i-sub", "nothing of its was replaced"


def test_while_the_agent_is_not_clean_they_stay_contained(case: Case) -> None:
    case.there.core.open_calls.add(("connect", "files.partner.test:443"))
    ended = case.run()
    assert ended.status is IncidentStatus.OPEN
    for other in ("sub", "sharer"):
        assert set(case.there.core.known[other].hold.levels) == {Level.FREEZE, Level.ISOLATE}


def test_undoing_the_incident_lets_them_go_too(case: Case) -> None:
    case.there.core.open_calls.add(("connect", "files.partner.test:443"))
    case.run()
    tuple(undo(case.response(), "false alarm"))
    for other in ("sub", "sharer"):
        assert case.there.core.known[other].hold is None
        assert Enforcement.FULL not in case.there.core.enforced[other].values()
