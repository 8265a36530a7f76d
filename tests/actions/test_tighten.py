"""The policy made narrower by an incident: what it denies, what it keeps, and whose yes it is."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.actions import policy_tighten
from clawback.enforcement.policy.asked import asked, says
from clawback.enforcement.policy.loader import load
from clawback.errors import Refused, Unreachable
from clawback.model import Attempt, Enforcement, HttpActivity, NetworkActivity


def http(there: Any, path: str, *, method: str = "GET", host: str = "api.internal") -> None:
    there.core.telemetry.write(
        HttpActivity, method=method, host=host, port=80, path=path, policy="support", time_ns=500_000_000
    )


def allows(there: Any, kind: str, target: str) -> bool:
    active = there.policies.active("support")
    network = load(there.policies.read("support", active.version), where="t").network
    return says(network, asked(Attempt(kind=kind, target=target))).allowed


@pytest.fixture
def step(drive: Any, there: Any) -> Any:
    http(there, "/v1/tickets/7")
    return drive(policy_tighten.ACTION, policy="support", reason="INC-1")


def test_rogue_calls_are_denied_by_name_and_use_goes_on(step: Any, there: Any) -> None:
    assert allows(there, "connect", "files.partner.test:443")
    seen = step.run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL)
    assert not allows(there, "connect", "files.partner.test:443")
    assert not allows(there, "http", "POST http://files.partner.test:443/x")
    assert allows(there, "http", "GET http://api.internal/v1/tickets/8")
    assert not allows(there, "http", "POST http://api.internal/v1/tickets/8")
    version = there.policies.active("support")
    assert (version.known_good, version.incident, version.author) == (True, "INC-1", "tester")
    assert "deny domain files.partner.test" in seen.proof
    step.run()
    assert there.policies.active("support").version == version.version


def test_it_waits_for_a_person_and_the_plan_is_the_difference(step: Any) -> None:
    assert policy_tighten.ACTION.consent
    plan = step.action.plan(step.context, step.params)
    assert "+      - domain: files.partner.test" in plan.changes
    assert any("1 rogue calls denied, 1 calls of use allowed" in line for line in plan.checks)


def test_use_that_is_lost_is_named(drive: Any, there: Any) -> None:
    there.core.telemetry.write(
        HttpActivity,
        method="GET",
        host="files.partner.test",
        port=443,
        path="/ours",
        policy="support",
        time_ns=400_000_000,
    )
    step = drive(policy_tighten.ACTION, policy="support", reason="x")
    lost = "http GET http://files.partner.test:443/ours"
    assert any("calls of use that it denies" in check for check in step.action.plan(step.context, step.params).checks)
    assert lost in step.run().proof


def test_what_was_rogue_is_no_use(drive: Any, there: Any) -> None:
    there.core.telemetry.write(
        NetworkActivity, host="files.partner.test", port=443, activity_id=NetworkActivity.OPEN, policy="support",
        time_ns=400_000_000,
    )  # fmt: skip
    http(there, "/upload/7", method="PUT", host="files.partner.test")
    step = drive(policy_tighten.ACTION, policy="support", reason="x", drop=True)
    assert step.run().verified
    # What else went to that host still may, on its own port.
    assert allows(there, "http", "PUT http://files.partner.test/upload/8")


def test_what_others_use_under_the_same_policy_is_kept(step: Any, there: Any) -> None:
    there.core.telemetry.write(
        HttpActivity, method="DELETE", host="api.internal", port=80, path="/v1/x", policy="support", agent="b",
        time_ns=500_000_000,
    )  # fmt: skip
    assert step.run().verified
    assert allows(there, "http", "DELETE http://api.internal/v1/x")


def test_undone_behind_its_back_it_is_not_verified(step: Any, there: Any) -> None:
    step.run()
    there.policies.put("support", there.policies.read("support", 2), author="x", reason="y")
    seen = step.verify()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)
    assert "allows connect files.partner.test:443" in seen.proof


def test_a_store_that_the_engine_does_not_follow_is_not_believed(step: Any, there: Any) -> None:
    there.policies.stuck = True
    assert not step.run().verified


def test_a_finding_that_joined_since_is_asked_about(
    step: Any, there: Any, make_incident: Any, make_finding: Any
) -> None:
    from dataclasses import replace

    step.run()
    later = make_finding(resource="x", attempts=(("connect", "api.internal:80"),))
    step.context = replace(step.context, incident=make_incident(findings=(make_finding(), later)))
    assert "allows connect api.internal:80" in step.verify().proof


def test_only_the_text_that_was_shown_is_put_in_force(drive: Any, there: Any) -> None:
    first = drive(policy_tighten.ACTION, policy="support", reason="x")
    version = there.policies.active("support").version
    shown, _ = policy_tighten.proposal(first.context, "support", version)
    step = drive(policy_tighten.ACTION, policy="support", reason="x", expected=shown.draft.sha256)
    http(there, "/v1/another")  # telemetry that came since makes another text of it
    with pytest.raises(Refused, match="not the one that was shown"):
        step.run()
    there.core.telemetry.written.clear()
    assert step.run().verified
    http(there, "/v1/another")
    assert step.run().verified  # after a crash: what was shown decides already


def test_reverted_the_text_is_as_it_was(step: Any, there: Any) -> None:
    step.run()
    assert step.revert().verified
    assert allows(there, "connect", "files.partner.test:443")
    there.policies.put("support", there.policies.read("support", 1), author="x", reason="y")
    assert step.action.verify_reverted
    assert not step.action.verify_reverted(step.context, step.params, step.captured).verified


def test_without_telemetry_nothing_is_guessed(step: Any) -> None:
    from dataclasses import replace

    step.context = replace(step.context, world=replace(step.context.world, telemetry_or_none=None))
    with pytest.raises(Unreachable):
        step.run()
