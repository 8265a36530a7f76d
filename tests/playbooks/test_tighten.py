"""A known-good policy that allows a rogue call is not enough: a narrower one is suggested, and a person decides."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.config import ApprovalSettings
from clawback.journal import Journal
from clawback.model import Attempt, IncidentStatus, PolicyChange, ReceiptState

from .test_others import Case

pytestmark = pytest.mark.slow

V, AWAITING, FAILED = ReceiptState.VERIFIED, ReceiptState.AWAITING, ReceiptState.FAILED
APPROVALS = ApprovalSettings()
ROGUE = ("connect", "files.partner.test:443")


def reviewed_too_wide(there: Any) -> None:
    wide = there.policies.read("support", 2)
    there.policies.put("support", wide, author="soc", reason="reviewed in a hurry", known_good=True)


def allowed(there: Any) -> bool:
    return bool(there.policies.decide("support", Attempt(kind=ROGUE[0], target=ROGUE[1])).allowed)


def skips(case: Case) -> list[str]:
    return [x.detail for x in case.journal.incident(case.id).timeline if x.what == "policy.tighten skipped"]


def test_recovery_waits_for_the_narrower_policy_and_goes_on_under_it(journal: Journal, there: Any) -> None:
    reviewed_too_wide(there)
    case = Case(journal, there).found("secrets.outside-allow-list", attempts=(ROGUE,))
    assert case.run(approvals=APPROVALS).status is IncidentStatus.OPEN
    assert case.receipts("policy.restore")[0].outcome["still_allows"] == ["connect files.partner.test:443"]
    assert (case.state("policy.tighten"), case.state("agent.release")) == (AWAITING, FAILED)
    assert allowed(there), "a suggestion changes nothing"
    (asked,) = journal.approvals(incident=case.id)
    assert any("1 rogue calls denied" in line for line in asked.shown)
    assert case.grant() == ["policy.tighten"]
    ended = case.run(approvals=APPROVALS)
    assert ended.status is IncidentStatus.CLOSED, [(x.key, x.error or x.proof) for x in ended.receipts if x.state != V]
    assert not allowed(there)
    order = case.order()
    assert order.index("policy.restore") < order.index("policy.tighten") < order.index("agent.release")
    assert there.core.known["a"].policy_version == there.policies.active("support").version


def test_denied_the_agent_stays(journal: Journal, there: Any) -> None:
    reviewed_too_wide(there)
    case = Case(journal, there).found("secrets.outside-allow-list", attempts=(ROGUE,))
    case.run(approvals=APPROVALS)
    (asked,) = journal.approvals(incident=case.id)
    journal.answer(asked.id, nonce=asked.nonce, who="ann", grant=False, reason="we need it", channel="test")
    assert case.run(approvals=APPROVALS).status is IncidentStatus.OPEN
    assert (case.state("policy.tighten"), case.state("agent.release")) == (FAILED, FAILED)
    assert there.core.known["a"].hold is not None


def test_a_known_good_that_denies_them_is_left_and_it_is_said(journal: Journal, there: Any) -> None:
    case = Case(journal, there).found("secrets.outside-allow-list", attempts=(ROGUE,))
    assert case.run(approvals=APPROVALS).status is IncidentStatus.CLOSED
    assert case.receipts("policy.tighten") == []
    assert skips(case) == ["the known-good version of support allows no rogue call that is on record"]


def test_a_rolled_back_policy_is_made_narrower_too(journal: Journal, there: Any) -> None:
    reviewed_too_wide(there)
    there.policies.put("support", there.policies.read("support", 2) + "# wider\n", author="dev", reason="quick fix")
    there.telemetry.add(
        PolicyChange, policy_version=3, agent="", instance="", author="dev", widened=("allow partner: *.partner.test",)
    )
    where = {"agent": "policy:support", "instance": "policy:support", "policy_version": 3}
    case = Case(journal, there).found("policy.widened", attempts=(ROGUE,), **where)
    case.run(approvals=APPROVALS)
    assert case.grant() == ["policy.roll-back"]
    case.run(approvals=APPROVALS)
    assert case.grant() == ["policy.tighten"]
    ended = case.run(approvals=APPROVALS)
    assert ended.status is IncidentStatus.CLOSED, [(x.key, x.error or x.proof) for x in ended.receipts if x.state != V]
    assert not allowed(there)
