"""A review: the seed's causes and what they rest on, a person's word before them, and text that stays text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from clawback.actions import incident_cause, incident_review
from clawback.actions._causes import CATEGORIES, root_causes
from clawback.errors import Unreachable
from clawback.model import Enforcement, ReceiptState


def causes(on: Any, versions: Any = ()) -> dict[str, float]:
    return {cause["category"]: cause["confidence"] for cause in root_causes(on, versions)}


@pytest.mark.parametrize(
    ("detectors", "asi", "strongest"),
    [
        (("exfiltration.new-destination",), (), "overly powerful tooling"),
        (("secrets.outside-allow-list", "exfiltration.new-destination"), ("ASI01",), "prompt or instruction issue"),
        (("sandbox.escape-attempt",), (), "compromised dependency"),
        (("routing.sensitive-to-cloud",), (), "misconfiguration"),
        (("credential.used-elsewhere",), (), "external actor"),
        (("sandbox.down",), (), "unknown"),
    ],
)
def test_each_category_rests_on_what_was_found(
    make_incident: Any, make_finding: Any, detectors: tuple[str, ...], asi: tuple[str, ...], strongest: str
) -> None:
    found = tuple(make_finding(detector=name, asi=asi, resource=name) for name in detectors)
    ranked = root_causes(make_incident(findings=found), ())
    assert ranked[0]["category"] == strongest
    assert strongest == "unknown" or strongest in CATEGORIES
    assert all(0 <= cause["confidence"] <= 0.9 for cause in ranked)
    assert all(cause["evidence"] for cause in ranked if cause["category"] != "unknown")


def test_a_version_that_nobody_reviewed_is_a_misconfiguration(make_incident: Any, there: Any) -> None:
    ranked = root_causes(make_incident(), there.policies.versions("support"))
    assert ranked[0]["category"] == "misconfiguration"
    assert "by dev" in ranked[0]["because"]


def test_what_a_person_decided_comes_first_and_is_certain(make_incident: Any, make_receipt: Any) -> None:
    said = make_receipt(
        "incident.cause", params={"cause": "external actor", "reason": "their IP"}, actor="ann", verified_ns=2
    )
    ranked = root_causes(make_incident(receipts=(said,)), ())
    assert (ranked[0]["category"], ranked[0]["confidence"], ranked[0]["decided_by"]) == ("external actor", 1.0, "ann")
    assert [x["category"] for x in ranked].count("external actor") == 1
    undone = replace(said, state=ReceiptState.REVERTED)
    assert "decided_by" not in root_causes(make_incident(receipts=(undone,)), ())[0]


def test_a_cause_is_one_that_there_is_and_is_read_back_from_the_record(
    drive: Any, make_incident: Any, make_receipt: Any
) -> None:
    with pytest.raises(ValueError, match="no such cause"):
        incident_cause.ACTION.params(cause="bad luck", reason="x")
    step = drive(incident_cause.ACTION, cause="misconfiguration", reason="the quick fix")
    assert "it has no such decision" in step.run().proof
    params = step.params.model_dump(mode="json")
    kept = make_incident(receipts=(make_receipt("incident.cause", params=params, actor="tester"),))
    step.context = replace(step.context, reread=lambda: kept)
    assert "tester decided: misconfiguration, the quick fix" in step.run().proof
    assert step.verify().verified
    step.context = replace(step.context, actor="somebody else")
    assert not step.verify().verified


def test_the_review_is_kept_read_back_and_says_what_to_change(drive: Any, there: Any) -> None:
    step = drive(incident_review.ACTION, policy="support")
    assert step.run().verified
    said = json.loads(there.reviews.texts["INC-1"]["json"])
    assert said["format"] == "clawback-review/1"
    assert said["metrics"]["detected_ms"] == 2.0
    assert said["metrics"]["recovered_ms"] is None
    assert "+      - domain: files.partner.test" in said["proposed_change"]["diff"]
    assert any("clawback policy tighten INC-1" in line for line in said["suggestions"])
    assert "diff" not in step.outcome["proposed"]
    text = there.reviews.texts["INC-1"]["markdown"]
    for heading in ("Root cause", "Metrics", "Blast radius", "What to change", "Proposed change of policy", "Timeline"):
        assert f"## {heading}" in text
    there.reviews.texts["INC-1"]["markdown"] += "changed"
    seen = step.verify()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)
    assert "not as written: markdown" in seen.proof


def test_a_review_that_vanished_is_not_verified(drive: Any, there: Any) -> None:
    there.reviews.loses = True
    assert not drive(incident_review.ACTION, policy="support").run().verified


def test_without_the_gateway_or_telemetry_the_review_is_written_all_the_same(drive: Any, there: Any) -> None:
    step = drive(incident_review.ACTION, policy="support")
    step.context = replace(step.context, world=replace(there.world, telemetry_or_none=None))
    assert step.run().verified
    assert step.outcome["proposed"] == {"unavailable": "no telemetry can be read here"}
    step.context = replace(step.context, world=replace(there.world, reviews_or_none=None))
    with pytest.raises(Unreachable):
        step.run()


def test_what_an_agent_chose_stays_text(drive: Any, there: Any, make_incident: Any, make_finding: Any) -> None:
    evil = "x](http://evil.test)\n# Heading <script>alert(1)</script> `| @all"
    on = make_incident(findings=(make_finding(resource=evil, title=evil, detector="exfiltration.new-destination"),))
    drive(incident_review.ACTION, on=on, policy="support").run()
    text = there.reviews.texts["INC-1"]["markdown"]
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "<script>" not in text
    assert "\n# Heading" not in text
