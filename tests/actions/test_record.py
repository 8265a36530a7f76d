"""Scope, ticket and review: what they put on record, and what they refuse to claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clawback.actions import incident_review, incident_scope, ticket_write
from clawback.errors import Unreachable
from clawback.model import AgentState, CredentialRef, Enforcement, ReceiptState, Severity


def test_scope_names_what_was_within_reach_and_no_value(drive: Any, there: Any) -> None:
    step = drive(incident_scope.ACTION, agent="a", instance="i1")
    assert step.run().verified
    scope = step.outcome
    assert scope["credentials"][0]["identifiers"]["accessor"] == "acc-1"
    assert scope["destinations"] == ["files.partner.test:443"]
    assert scope["data"] == ["/root/.aws/credentials"]
    assert incident_scope.blast_radius(step.context.incident, there.core.known["a"], ())["destinations"] == 1
    assert scope["instructions"] == "python3 agent.py --goal answer tickets"
    assert scope["assessment"]["verdict"] == "threat"
    assert "hvs.never" not in str(scope)
    assert there.core.enforced["a"] == {}


def test_scope_tells_whom_from_what(drive: Any, make_incident: Any, make_finding: Any) -> None:
    calls = (("http", "GET http://vault.internal:8200/v1/secret/data/payroll?x=1"), ("connect", "sink.test:443"))
    step = drive(incident_scope.ACTION, on=make_incident(findings=(make_finding(attempts=calls),)), agent="a")
    step.run()
    assert step.outcome["destinations"] == ["vault.internal:8200", "sink.test:443"]
    assert step.outcome["data"] == ["http://vault.internal:8200/v1/secret/data/payroll"]


def test_scope_finds_the_others_who_hold_the_same_credential(drive: Any, there: Any) -> None:
    there.core.known["b"] = replace(there.core.known["a"], agent="b")
    there.core.known["c"] = replace(there.core.known["a"], agent="c", credentials=(), policy="other")
    step = drive(incident_scope.ACTION, agent="a")
    step.run()
    radius = step.outcome["blast_radius"]
    assert radius["agents_sharing_credentials"] == ["b"]
    assert radius["level"] == "high"


def test_credentials_without_identifiers_are_not_taken_for_shared(drive: Any, there: Any) -> None:
    blank = CredentialRef(kind="vault-token", name="t", identifiers={"accessor": ""})
    unnamed = CredentialRef(kind="vault-kv", name="t", identifiers={})
    for ref in (blank, unnamed):
        there.core.known["a"] = replace(there.core.known["a"], credentials=(ref,))
        there.core.known["b"] = replace(there.core.known["a"], agent="b")
        step = drive(incident_scope.ACTION, agent="a")
        step.run()
        assert step.outcome["blast_radius"]["agents_sharing_credentials"] == []


def test_a_lone_finding_after_a_fresh_change_may_be_a_mistake(
    there: Any, make_incident: Any, make_finding: Any
) -> None:
    versions = there.policies.versions("support")
    one = make_finding(
        detector="policy.unapproved-destination", severity=Severity.MEDIUM, time_ns=versions[1].created_ns + 5
    )
    assert incident_scope.assess(make_incident(findings=(one,)), versions)["verdict"] == "misconfiguration"
    worse = replace(one, severity=Severity.CRITICAL)
    assert incident_scope.assess(make_incident(findings=(worse,)), versions)["verdict"] == "threat"
    assert incident_scope.assess(make_incident(findings=(one,)), ())["verdict"] == "undetermined"
    assert incident_scope.assess(make_incident(findings=()), versions)["verdict"] == "undetermined"


def test_scope_of_another_instance_is_partial(drive: Any) -> None:
    seen = drive(incident_scope.ACTION, agent="a", instance="i9").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)


def test_reading_actions_revert_to_nothing(drive: Any) -> None:
    step = drive(incident_scope.ACTION, agent="a")
    step.run()
    assert step.revert().verified


def test_a_ticket_is_verified_by_reading_it_back(drive: Any, there: Any) -> None:
    step = drive(ticket_write.ACTION, stage="opened")
    assert step.run().verified
    there.tickets.texts["INC-1"]["jira"] += " "
    seen = step.verify()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)


def test_a_ticket_that_vanished_is_not_verified(drive: Any, there: Any) -> None:
    there.tickets.loses = True
    seen = drive(ticket_write.ACTION, stage="opened").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)


def test_an_issue_is_verified_by_reading_it_back_and_by_nothing_else(drive: Any, there: Any) -> None:
    there.tickets.tracks = True
    step = drive(ticket_write.ACTION, stage="opened")
    seen = step.run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL)
    assert "issue SEC-1 read back" in seen.proof
    there.tickets.issues["INC-1"] += "!"
    seen = step.verify()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.PARTIAL)
    del there.tickets.issues["INC-1"]
    assert "issue SEC-1 is not there" in step.verify().proof
    there.tickets.down = True
    with pytest.raises(Unreachable):
        step.verify()


def test_with_the_tracker_down_the_file_is_written_and_the_step_is_pending(drive: Any, there: Any) -> None:
    there.tickets.tracks = there.tickets.down = True
    step = drive(ticket_write.ACTION, stage="opened")
    with pytest.raises(Unreachable):
        step.run()
    assert there.tickets.texts["INC-1"]["markdown"]
    there.tickets.down = False
    assert step.run().verified


def test_the_same_incident_stays_one_ticket(drive: Any, there: Any) -> None:
    for stage in ("opened", "contained", "final"):
        assert drive(ticket_write.ACTION, stage=stage).run().verified
    assert list(there.tickets.texts) == ["INC-1"]


def test_a_stage_is_a_plain_word() -> None:
    with pytest.raises(ValueError, match="stage"):
        ticket_write.ACTION.params(stage="../../etc")


def test_review_names_the_change_that_let_it_happen(drive: Any, make_incident: Any, make_receipt: Any) -> None:
    on = make_incident(receipts=(make_receipt("agent.seal", state=ReceiptState.FAILED, error="EBUSY"),))
    step = drive(incident_review.ACTION, on=on, policy="support")
    assert step.run().verified
    assert step.outcome["root_causes"][0]["category"] == "misconfiguration"
    assert "by dev" in step.outcome["root_causes"][0]["because"]
    assert "+      - {name: wide, domain: '*.partner.test'}" in step.outcome["policy_diff"]
    assert any("finish agent.seal" in line for line in step.outcome["suggestions"])


def test_review_names_credentials_that_no_action_replaces(drive: Any, make_incident: Any, make_receipt: Any) -> None:
    held = [{"kind": kind, "name": kind, "identifiers": {}} for kind in ("opaque", "vault-kv", "vault-token")]
    on = make_incident(receipts=(make_receipt("incident.scope", outcome={"credentials": held}),))
    step = drive(incident_review.ACTION, on=on, policy="support")
    step.run()
    lines = [line for line in step.outcome["suggestions"] if line.startswith(("replace ", "revoke "))]
    assert lines == [
        "replace opaque by hand: no action does it for a opaque",
        "revoke vault-kv at its own issuer: Vault only stores it, and whoever copied it has it",
    ]


def test_review_without_a_policy_store_still_reviews(drive: Any) -> None:
    step = drive(incident_review.ACTION, policy="unknown")
    assert step.run().verified
    assert step.outcome["policy_diff"] == ""


def test_an_agent_that_is_gone_can_still_be_scoped(drive: Any, there: Any) -> None:
    there.core.known["a"] = replace(there.core.known["a"], state=AgentState.LOST)
    assert drive(incident_scope.ACTION, agent="a").run().verified
