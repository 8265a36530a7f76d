"""Each playbook by the real engine and journal: what sets it apart, and that it never goes on without its proof."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from clawback.catalog import load
from clawback.config import ApprovalSettings
from clawback.journal import Journal
from clawback.model import (
    ApprovalState,
    CredentialUse,
    Disposition,
    Finding,
    HttpActivity,
    Incident,
    IncidentStatus,
    KernelActivity,
    LaunchSpec,
    Level,
    Lifecycle,
    NetworkActivity,
    Phase,
    PolicyChange,
    Receipt,
    ReceiptState,
    RouteActivity,
    Sensitivity,
    Severity,
    Source,
)
from clawback.response import Responder, Response, run_playbook

pytestmark = pytest.mark.slow

V, FAILED, UNVERIFIED, AWAITING = (
    ReceiptState.VERIFIED,
    ReceiptState.FAILED,
    ReceiptState.UNVERIFIED,
    ReceiptState.AWAITING,
)


class Case:
    """One incident of a detector, its playbook run as a new process would, any number of times."""

    def __init__(self, journal: Journal, there: Any) -> None:
        self.journal, self.there, self.id = journal, there, ""

    def found(self, detector: str, **changes: Any) -> Case:
        unit = load().detectors[detector]
        values: dict[str, Any] = {
            "detector": detector,
            "agent": "a",
            "instance": "i1",
            "severity": unit.severity,
            "technique": unit.technique,
            "resource": "r",
            "policy": "support",
            "policy_version": 2,
            "title": unit.title,
            "summary": "s",
            "time_ns": time.time_ns(),
            "events": (),
            "reflex": unit.reflex,
        }
        book = load().answering(detector)
        assert book is not None
        finding = Finding(**{**values, **changes})
        self.id = self.journal.open_or_join(finding, playbook=book.id)[0].id
        return self

    def run(self, *, approvals: ApprovalSettings | None = None) -> Incident:
        response = Response(self.journal, self.there.world, actor="responder", incident_id=self.id, approvals=approvals)
        ended = run_playbook(load().playbooks[self.journal.incident(self.id).playbook], Responder(response))
        assert not ended.error, ended.error
        return ended.incident

    def grant(self) -> list[str]:
        asked = self.journal.approvals(ApprovalState.PENDING, incident=self.id)
        for one in asked:
            self.journal.answer(one.id, nonce=one.nonce, who="ann", grant=True, reason="looked", channel="test")
        return [one.action for one in asked]

    def receipts(self, action: str) -> list[Receipt]:
        return [x for x in self.journal.incident(self.id).receipts if x.action == action]

    def state(self, action: str) -> ReceiptState | None:
        found = self.receipts(action)
        return found[-1].state if found else None

    def order(self) -> list[str]:
        done = (x for x in self.journal.incident(self.id).receipts if x.state is V)
        return [x.action for x in sorted(done, key=lambda x: x.verified_ns)]


@pytest.fixture
def case(journal: Journal, there: Any) -> Case:
    return Case(journal, there)


def another(there: Any, agent: str, **more: Any) -> Any:
    return there.core.launch(
        LaunchSpec(agent=agent, command=("x",), policy="support", policy_version=2, policy_text="", **more)
    )


def beat(there: Any, info: Any, status: str = "alive", after: float = 0.0) -> None:
    there.telemetry.add(
        Lifecycle,
        source=Source.SANDBOX,
        agent=info.agent,
        instance=info.instance,
        component="sandbox",
        status=status,
        time_ns=time.time_ns() + round(after * 1e9),
    )


APPROVALS = ApprovalSettings()


def part(name: str) -> dict[str, str]:
    return {"agent": name, "instance": name}


class TestRestoreSandbox:
    def test_all_are_halted_before_anything_else_and_go_on_with_consent(self, case, there):
        other = another(there, "b")
        case.found("sandbox.down")
        beat(there, other)
        ended = case.run(approvals=APPROVALS)
        assert there.core.enforced["b"].get(Level.FREEZE)
        assert case.state("agents.halt") is V
        assert case.state("agents.lift") is AWAITING
        assert case.state("agent.release") is FAILED
        assert ended.status is IncidentStatus.OPEN
        assert case.grant() == ["agents.lift"]
        ended = case.run(approvals=APPROVALS)
        assert [(x.action, x.state, x.error, x.proof) for x in ended.receipts if x.state is not V] == []
        assert ended.status is IncidentStatus.CLOSED
        assert there.core.known["b"].hold is None
        assert not there.core.enforced["b"]

    def test_while_one_sandbox_is_unsound_nobody_goes_on(self, case, there):
        other = another(there, "b")
        case.found("sandbox.down")
        beat(there, other, "tampered")
        case.run()
        assert case.state("sandbox.check") is UNVERIFIED
        assert "b is tampered" in case.receipts("sandbox.check")[0].proof
        assert case.state("agents.lift") is FAILED
        assert there.core.standing

    def test_one_that_was_not_heard_of_is_not_sound(self, case, there):
        another(there, "b")
        case.found("sandbox.down").run()
        assert "b has not been heard of since" in case.receipts("sandbox.check")[0].proof

    def test_a_halt_that_does_not_hold_everybody_is_not_verified(self, case, there):
        other = another(there, "b")
        there.core.unstoppable.add("b")
        case.found("sandbox.down")
        beat(there, other)
        case.run()
        assert case.state("agents.halt") is UNVERIFIED
        assert "NOT frozen: b" in case.receipts("agents.halt")[0].proof
        assert there.core.standing

    @pytest.mark.parametrize(("wanted", "halted"), [("tenant", {"a", "b"}), ("team", {"a"}), ("none", set())])
    def test_whom_the_settings_want(self, case, there, wanted, halted):
        another(there, "b", tenant="acme", team="other")
        another(there, "c", tenant="other")
        object.__setattr__(there.world, "sandbox_down_halts", wanted)
        case.found("sandbox.down").run()
        assert {name for one in there.core.standing.values() for name in ("a", "b", "c")
                if there.core._means(one.selector, there.core.known[name])} == halted  # fmt: skip


def route(there: Any, sensitivity: Sensitivity, destination: str = "cloud", **more: Any) -> Any:
    fields: dict[str, Any] = {"model": "big", "endpoint": "https://cloud.test", "data_types": ("ssn",)}
    return there.telemetry.add(
        RouteActivity, source=Source.ROUTING, sensitivity=sensitivity, destination=destination, **(fields | more)
    )


class TestSensitiveDataToCloud:
    def test_it_is_held_audited_documented_and_keeps_its_credentials(self, case, there):
        other = another(there, "b")
        events = [route(there, Sensitivity.RESTRICTED), route(there, Sensitivity.INTERNAL)]
        route(there, Sensitivity.CONFIDENTIAL, agent="b", instance=other.instance)
        ended = case.found("routing.sensitive-to-cloud", events=(events[0].uid,)).run()
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        mine, everybody = case.receipts("routing.audit")
        assert (mine.outcome["leaks"], everybody.outcome["leaks"]) == (1, 2)
        assert everybody.outcome["leaked_by"] == {"a": 1, "b": 1}
        written = json.loads(there.documents.texts[case.id, "data-routing"])
        assert written["facts"]["routing.audit"]["leaked_types"] == {"ssn": 2}
        assert written["decide_on_notification_before_ns"] - written["first_event_ns"] == 72 * 3600 * 10**9
        assert "acc-1" in there.vault.live, "its token did nothing wrong"
        assert [(x.mode, str(x.scope)) for x in there.orders.orders()] == [("queue-sensitive", "all agents")]
        assert there.core.known["a"].instance == "i1rr"  # observed first, then let go in full

    def test_with_another_finding_it_is_rogue_and_its_credentials_go(self, case, there):
        route(there, Sensitivity.RESTRICTED)
        case.found("routing.sensitive-to-cloud").found("secrets.outside-allow-list", resource="x")
        case.run()
        assert "acc-1" not in there.vault.live

    def test_a_record_that_no_longer_holds_what_was_reported_lets_nobody_go(self, case, there):
        case.found("routing.sensitive-to-cloud").run()
        assert case.state("routing.audit") is UNVERIFIED
        assert case.state("agent.release") is FAILED

    def test_a_document_that_is_not_there_is_not_claimed(self, case, there):
        route(there, Sensitivity.RESTRICTED)
        there.documents.loses = True
        ended = case.found("routing.sensitive-to-cloud").run()
        assert case.state("compliance.document") is UNVERIFIED
        assert ended.status is IncidentStatus.OPEN
        there.documents.loses = False
        assert case.run().status is IncidentStatus.CLOSED


POLICY = """\
networkPolicy:
  name: support
  egress:
    allow:
      - {name: api, domain: api.test, methods: [GET], paths: ["/v1/*", "/v2/*"]}
      - {name: old, domain: "*.old.test"}
    deny:
      - {name: pay, domain: api.test, paths: ["/v1/pay"]}
"""


def decided(there: Any, decisions: int, slow: int) -> None:
    there.telemetry.add(
        Lifecycle,
        agent="",
        instance="",
        component="policy-engine",
        status="alive",
        decisions=decisions,
        slow=slow,
        p99_ms=310.0,
    )


class TestPolicyLatency:
    def test_a_report_no_containment_and_open_until_it_is_quick(self, case, there):
        there.policies.put("support", POLICY, author="soc", reason="r")
        decided(there, 100, 50)
        there.telemetry.add(HttpActivity, method="GET", host="api.test", port=443, path="/v1/x", rule="api")
        ended = case.found("policy.latency", **part("component:policy-engine")).run()
        report = case.receipts("policy.complexity")[0].outcome
        assert (report["rules"], report["patterns"], report["wildcards"]) == (3, 7, 3)
        assert report["never_used"] == ["pay", "old"]
        assert (report["decisions"], report["slow"]) == (100, 50)
        assert case.state("policy.timely") is UNVERIFIED
        assert ended.status is IncidentStatus.OPEN
        decided(there, 1_000, 2)
        assert case.run().status is IncidentStatus.CLOSED
        assert not [x for x in there.core.calls if x.startswith(("contain", "halt"))]

    def test_a_few_quick_decisions_do_not_outweigh_many_slow_ones(self, case, there):
        there.policies.put("support", POLICY, author="soc", reason="r")
        case.found("policy.latency", **part("component:policy-engine"))
        decided(there, 1_000, 900)
        decided(there, 100, 0)
        assert case.run().status is IncidentStatus.OPEN


class TestViolationSpike:
    def refused(self, there, times, distinct):
        for n in range(times):
            there.telemetry.add(
                KernelActivity, source=Source.SANDBOX, syscall=f"call{n % distinct}", disposition=Disposition.BLOCKED
            ) if n % 2 else there.telemetry.add(
                NetworkActivity, host=f"h{n % distinct}.test", port=443, disposition=Disposition.BLOCKED
            )

    def test_one_thing_again_and_again_stays_frozen_and_undecided(self, case, there):
        self.refused(there, 30, 2)
        ended = case.found("sandbox.violation-spike").run()
        assert set(there.core.known["a"].hold.levels) == {Level.FREEZE}
        assert case.state("instructions.review") is UNVERIFIED
        assert ended.status is IncidentStatus.OPEN
        assert "acc-1" in there.vault.live

    def test_a_person_releases_it_and_that_was_that(self, case, there):
        self.refused(there, 30, 2)
        case.found("sandbox.violation-spike").run()
        there.core.release("a", reason="policy too tight", by="ann")
        ended = case.run()
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        assert "harmless, says a person" in case.receipts("instructions.review")[0].proof
        assert there.core.known["a"].hold is None, "a second run must not freeze it again"
        assert "acc-1" in there.vault.live

    def test_a_person_confirms_it(self, case, there):
        case.found("sandbox.violation-spike").run()
        there.core.contain("a", Level.ISOLATE, reason="injected", by="ann")
        case.run()
        assert "acc-1" not in there.vault.live

    def test_a_search_is_confirmed_at_once(self, case, there):
        self.refused(there, 40, 20)
        ended = case.found("sandbox.violation-spike").run()
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        assert "it searches" in case.receipts("instructions.review")[0].proof
        assert "acc-1" not in there.vault.live

    def test_another_detectors_finding_confirms_it(self, case, there):
        case.found("sandbox.violation-spike").run()
        case.found("secrets.outside-allow-list", resource="/etc/shadow")
        case.run()
        assert "acc-1" not in there.vault.live


class TestLocalModel:
    def said(self, there, status):
        there.telemetry.add(
            Lifecycle, source=Source.ROUTING, agent="", instance="", component="local-model", status=status
        )

    def test_open_until_the_router_sees_it_again(self, case, there):
        self.said(there, "unavailable")
        ended = case.found("routing.local-model-unavailable", **part("component:local-model")).run()
        assert case.state("routing.recovered") is UNVERIFIED
        assert ended.status is IncidentStatus.OPEN
        self.said(there, "unavailable")
        assert case.run().status is IncidentStatus.OPEN
        self.said(there, "available")
        assert case.run().status is IncidentStatus.CLOSED
        assert not there.documents.texts

    def test_what_leaked_meanwhile_is_documented(self, case, there):
        route(there, Sensitivity.RESTRICTED)
        case.found("routing.local-model-unavailable", **part("component:local-model"))
        self.said(there, "available")
        case.run()
        assert (case.id, "data-routing") in there.documents.texts


class TestRogueToolCalls:
    def test_every_call_is_accounted_for_before_credentials_change(self, case, there):
        fields: dict[str, Any] = {"method": "POST", "host": "tools.test", "port": 443, "path": "/mcp"}
        there.telemetry.add(HttpActivity, calls=("tools/call read",), **fields)
        bad = there.telemetry.add(HttpActivity, calls=("tools/call wipe",), disposition=Disposition.BLOCKED, **fields)
        ended = case.found("tools.denied-call", resource="wipe@tools.test:443", events=(bad.uid,)).run()
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        account = case.receipts("access.review")[0].outcome
        assert account["tools_called"] == {"tools/call read": 1}
        assert account["tools_refused"] == {"tools/call wipe": 1}
        order = case.order()
        assert order.index("access.review") < order.index("vault.rotate-token")
        assert there.orders.orders() == (), "its policy refuses the call already"

    def test_a_new_tool_waits_for_a_person_and_shows_its_use(self, case, there):
        case.found("tools.new-call", resource="wipe@tools.test:443").run()
        assert there.core.known["a"].hold is None
        assert case.state("access.review") is V
        assert there.orders.orders() == ()
        there.core.contain("a", Level.ISOLATE, reason="not its tool", by="ann")
        assert case.run().status is IncidentStatus.CLOSED
        [denied] = there.orders.orders()
        assert (denied.tool, denied.host, str(denied.scope)) == ("wipe", "tools.test", "agent a")

    def test_findings_whose_events_are_gone_are_not_accounted_for(self, case, there):
        case.found("tools.denied-call", events=("policy/w/99",)).run()
        assert case.state("access.review") is UNVERIFIED
        assert case.state("agent.release") is FAILED


class TestDataExfiltration:
    def test_what_left_is_counted_and_documented(self, case, there):
        for sent in (100, 5_000, 9_000):
            last = there.telemetry.add(
                NetworkActivity, host="evil.test", port=443, connection="c1", bytes_out=sent, bytes_in=10
            )
        ended = case.found("exfiltration.new-destination", resource="evil.test:443", events=(last.uid,)).run()
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        account = case.receipts("access.review")[0].outcome
        assert account["destinations"] == {"evil.test:443": {"sent": 9_000, "received": 10}}
        assert json.loads(there.documents.texts[case.id, "data-exfiltration"])["not_on_record"] == ["routing.audit"]
        [blocked] = there.orders.orders()
        assert (blocked.host, blocked.port, str(blocked.scope)) == ("evil.test", 443, "all agents")
        assert "acc-1" not in there.vault.live


class TestCredentialMisuse:
    def test_credentials_are_refused_as_containment_and_before_the_rest(self, case, there):
        use = there.telemetry.add(
            CredentialUse,
            source=Source.EXTERNAL,
            credential="vault-token",
            issuer="vault",
            origin="203.0.113.9",
            elsewhere=True,
        )
        ended = case.found("credentials.misused", events=(use.uid,)).run()
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        assert case.receipts("vault.rotate-token")[0].phase is Phase.CONTAIN
        order = case.order()
        assert order.index("evidence.collect") < order.index("vault.rotate-token") < order.index("agent.seal")
        assert case.receipts("access.review")[0].outcome["credential_uses"] == {
            "vault-token at vault from 203.0.113.9 (elsewhere)": 1
        }

    def test_containment_by_credentials_waits_for_no_approval(self, case, there):
        everything = ApprovalSettings.model_validate({"rules": [{"actions": ["vault.*", "credential.*"], "quorum": 1}]})
        case.found("credentials.misused").run(approvals=everything)
        assert "acc-1" not in there.vault.live


class TestMisconfiguration:
    def change(self, there):
        there.telemetry.add(
            PolicyChange, agent="", instance="", author="dev", widened=("allow partner: *.partner.test",)
        )

    def test_nobody_used_it_nobody_is_held_and_the_roll_back_waits(self, case, there):
        self.change(there)
        there.telemetry.add(HttpActivity, method="GET", host="api.test", port=443, path="/", rule="api")
        case.found("policy.widened", **part("policy:support")).run(approvals=APPROVALS)
        assert there.core.known["a"].hold is None
        assert case.receipts("policy.impact")[0].outcome["harmed"] == {}
        assert case.state("policy.roll-back") is AWAITING
        assert there.policies.active("support").version == 2
        assert case.grant() == ["policy.roll-back"]
        assert case.run(approvals=APPROVALS).status is IncidentStatus.CLOSED
        assert there.policies.active("support").version == 3

    def test_what_has_only_just_happened_is_the_detectors(self, case, there):
        self.change(there)
        there.telemetry.add(NetworkActivity, activity_id=1, host="x.partner.test", port=443, rule="partner")
        case.found("policy.widened", **part("policy:support")).run(approvals=APPROVALS)
        assert there.core.known["a"].hold is None
        case.grant()
        case.run(approvals=APPROVALS)
        assert list(case.receipts("policy.impact")[1].outcome["harmed"]) == ["a"], "and is on record afterwards"

    def test_whom_another_incident_holds_is_left_to_it(self, case, there, monkeypatch):
        monkeypatch.setattr("clawback.actions.policy_impact.SETTLED_NS", 0)
        there.core.contain("a", Level.FREEZE, reason="r", by="watch", incident="INC-1")
        self.change(there)
        there.telemetry.add(NetworkActivity, activity_id=1, host="x.partner.test", port=443, rule="partner")
        case.found("policy.widened", **part("policy:support")).run(approvals=APPROVALS)
        assert case.receipts("agent.freeze") == []

    def test_who_used_it_is_held_until_it_is_mended(self, case, there, monkeypatch):
        monkeypatch.setattr("clawback.actions.policy_impact.SETTLED_NS", 0)
        another(there, "b")
        self.change(there)
        there.telemetry.add(NetworkActivity, activity_id=1, host="x.partner.test", port=443, rule="partner")
        case.found("policy.widened", **part("policy:support")).run(approvals=APPROVALS)
        assert set(there.core.known["a"].hold.levels) == {Level.FREEZE, Level.ISOLATE}
        assert there.core.known["b"].hold is None
        case.grant()
        ended = case.run(approvals=APPROVALS)
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        assert there.core.known["a"].hold is None
        assert there.core.known["a"].instance == "i1", "it goes on where it was frozen"
        assert "acc-1" in there.vault.live

    def test_without_the_gateways_comparison_nothing_is_claimed(self, case, there):
        case.found("policy.widened", **part("policy:support")).run()
        assert case.state("policy.impact") is FAILED


class TestHybridIntrusion:
    def test_tree_and_credentials_at_once_and_people_before_recovery(self, case, there):
        another(there, "sub", parent="a")
        another(there, "stranger")
        case.found("intrusion.host-and-agent", resource="A-17").run(approvals=APPROVALS)
        assert there.core.enforced["sub"].get(Level.FREEZE)
        assert not there.core.enforced["stranger"]
        assert "acc-1" not in there.vault.live
        assert [x.state for x in case.receipts("handoff.confirm")] == [AWAITING, AWAITING]
        assert case.state("agent.release") is FAILED
        assert case.grant() == ["handoff.confirm"] * 2
        case.run(approvals=APPROVALS)
        assert case.grant() == ["agents.lift"]
        ended = case.run(approvals=APPROVALS)
        assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if x.state is not V]
        assert all("confirmed, not observed" in x.proof for x in case.receipts("handoff.confirm"))
        assert there.core.known["sub"].hold is None

    def test_denied_nothing_comes_back(self, case, there):
        case.found("intrusion.host-and-agent").run(approvals=APPROVALS)
        for one in case.journal.approvals(ApprovalState.PENDING, incident=case.id):
            case.journal.answer(one.id, nonce=one.nonce, who="ann", grant=False, reason="not clean", channel="test")
        case.run(approvals=APPROVALS)
        assert case.state("handoff.confirm") is FAILED
        assert Level.FREEZE in there.core.known["a"].hold.levels


@pytest.mark.parametrize("name", sorted(load().playbooks))
def test_it_says_why_it_differs(name: str) -> None:
    book = load().playbooks[name]
    assert book.doc
    assert book.title
    assert load().runbooks[book.runbook].playbook == name


def test_a_second_run_of_each_does_nothing_more(case: Case, there: Any) -> None:
    route(there, Sensitivity.RESTRICTED)
    case.found("routing.sensitive-to-cloud", severity=Severity.CRITICAL).run()
    before = [x for x in there.core.calls if not x.startswith(("agent", "probe"))]
    case.run()
    assert [x for x in there.core.calls if not x.startswith(("agent", "probe"))] == before
