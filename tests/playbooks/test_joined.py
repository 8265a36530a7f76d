"""A finding of another kind joins an open incident: what the wider playbook asks for is done before the agent goes."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.catalog import load
from clawback.errors import Unreachable
from clawback.journal import Journal
from clawback.model import Incident, IncidentStatus, Level, NetworkActivity, ReceiptState, Sensitivity

from .test_others import Case, route

pytestmark = pytest.mark.slow

V = ReceiptState.VERIFIED
PLACE = "drop.test:443"


def short(incident: Incident) -> list[tuple[str, str]]:
    return [(x.key, x.error or x.proof) for x in incident.receipts if x.state is not V]


def leaked(journal: Journal, there: Any) -> Case:
    event = route(there, Sensitivity.RESTRICTED)
    return Case(journal, there).found("routing.sensitive-to-cloud", events=(event.uid,), technique="T1")


def exfiltrated(case: Case) -> Case:
    event = case.there.telemetry.add(NetworkActivity, activity_id=1, host="drop.test", port=443)
    return case.found("exfiltration.new-destination", resource=PLACE, reflex=Level.ISOLATE, events=(event.uid,))


def test_exfiltration_that_joins_a_routing_incident_is_answered_in_full(journal: Journal, there: Any) -> None:
    case = exfiltrated(leaked(journal, there))
    assert journal.incident(case.id).playbooks == ("sensitive-data-to-cloud", "data-exfiltration")
    ended = case.run()
    assert ended.status is IncidentStatus.CLOSED, [
        (x.key, x.error or x.proof) for x in ended.receipts if x.state is not V
    ]
    done = {x.action for x in ended.receipts}
    assert {"network.block-destination", "access.review", "agent.seal", "vault.rotate-token"} <= done, "the wider one's"
    assert {"routing.audit", "inference.queue-sensitive"} <= done, "and the first one's"
    assert {x.params["kind"] for x in case.receipts("compliance.document")} == {"data-routing", "data-exfiltration"}
    order = case.order()
    for step in ("network.block-destination", "agent.seal", "vault.rotate-token", "policy.restore", "routing.audit"):
        assert order.index(step) < order.index("agent.release"), step
    for step in (
        "agent.freeze",
        "agent.isolate",
        "agent.stop",
        "vault.rotate-token",
        "agent.release",
        "agent.relaunch",
    ):
        assert [x.attempts for x in case.receipts(step)] == [1], step
    assert there.core.known["a"].hold is None


def test_joined_while_the_first_is_eradicating_the_agent_is_not_let_go_before(
    journal: Journal, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, put = leaked(journal, there), there.policies.put

    def joins(*given: Any, **more: Any) -> Any:
        if len(journal.incident(case.id).findings) == 1:
            exfiltrated(case)
        return put(*given, **more)

    monkeypatch.setattr(there.policies, "put", joins)  # the first put of its response restores the policy
    ended = case.run()
    assert ended.status is IncidentStatus.CLOSED, [
        (x.key, x.error or x.proof) for x in ended.receipts if x.state is not V
    ]
    order = case.order()
    assert order.index("vault.rotate-token") < order.index("agent.release")
    assert order.index("network.block-destination") < order.index("agent.release")
    assert there.core.calls.count("release") == 1


def test_what_the_wider_one_could_not_do_keeps_the_agent(
    journal: Journal, there: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = exfiltrated(leaked(journal, there))
    with monkeypatch.context() as patch:
        patch.setattr(there.orders, "place", away)
        ended = case.run()
    assert case.state("network.block-destination") is not V
    assert ended.status is IncidentStatus.OPEN
    assert case.state("agent.release") is ReceiptState.FAILED
    assert set(there.core.known["a"].hold.levels) >= {Level.FREEZE, Level.ISOLATE}
    assert case.run().status is IncidentStatus.CLOSED


def away(*_given: Any, **_more: Any) -> Any:
    raise Unreachable("the gateway does not answer")


def test_one_that_the_incidents_own_covers_adds_nothing(journal: Journal, there: Any) -> None:
    case = Case(journal, there).found("secrets.outside-allow-list", technique="T1")
    case.found("sandbox.violation-spike", resource="s")
    assert journal.incident(case.id).playbooks == ("contain-rogue-agent", "violation-spike")
    assert case.run().status is IncidentStatus.CLOSED
    assert case.receipts("instructions.review") == []


def test_who_covers_a_playbook_covers_what_that_covers_and_not_each_other() -> None:
    books = load().playbooks
    for book in books.values():
        for name in book.covers:
            assert books[name].covers <= book.covers, (book.id, name)
            assert book.id not in books[name].covers
