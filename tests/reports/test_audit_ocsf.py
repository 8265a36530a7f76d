"""The audit record's export, held against what OCSF 1.5 says of class 3004, Entity Management.

The attributes, their types and which of them are required are those of schema.ocsf.io for that class, its base event
and the objects `metadata`, `product`, `actor` and `managed_entity`; only those that the export uses are listed, and
another is an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from clawback.journal import Journal
from clawback.journal.approvals import Need
from clawback.model import Finding, Phase, Severity
from clawback.reports.audit_ocsf import to_ocsf

TEXT = {"type": "string", "minLength": 1}
TIME = {"type": "integer", "minimum": 1_500_000_000_000, "maximum": 5_000_000_000_000}  # timestamp_t: milliseconds


def an_object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


SCHEMA = an_object(
    ["activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "metadata", "entity"],
    activity_id={"enum": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 99]},
    category_uid={"const": 3},
    class_uid={"const": 3004},
    type_uid={"type": "integer", "minimum": 300400, "maximum": 300499},
    time=TIME,
    severity_id={"enum": [0, 1, 2, 3, 4, 5, 6, 99]},
    message={"type": "string"},
    metadata=an_object(
        ["version", "product"],
        version={"const": "1.5.0"},
        product=an_object(["vendor_name"], name=TEXT, vendor_name=TEXT, version=TEXT),
        uid=TEXT,
        sequence={"type": "integer"},
        correlation_uid={"type": "string"},
    ),
    entity={
        **an_object([], type=TEXT, uid=TEXT, name={"type": "string"}),
        "anyOf": [{"required": ["name"]}, {"required": ["uid"]}],
    },
    actor=an_object(["app_name"], app_name=TEXT),
    unmapped={"type": "object"},
)
FINDING = Finding(
    detector="d", agent="agent-1", instance="agent-1-a", severity=Severity.HIGH, technique="T", resource="/r",
    policy="p", policy_version=1, title="t", summary="s", time_ns=1, events=("e",),
)  # fmt: skip


def test_every_entry_is_an_event_of_the_class(tmp_path: Path) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    journal = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    incident, _ = journal.open_or_join(FINDING, playbook="book")
    receipt = journal.intend(incident, "k", "a.b", Phase.CONTAIN, {}, "watch", captured={})
    journal.failed(receipt.id, "no")
    asked = journal.ask(incident, "k", "a.b", Phase.RECOVER, {}, Need(), shown=(), actor="responder")
    journal.answer(asked.id, nonce=asked.nonce, who="ann", grant=False)
    journal.override(0, seconds=60, reason="all", by="ann")
    events = [json.loads(json.dumps(to_ocsf(entry))) for entry in journal.audit_entries()]
    validator = Draft202012Validator(SCHEMA)
    for event in events:
        assert not [error.message for error in validator.iter_errors(event)], event
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert {event["entity"]["type"] for event in events} == {
        "incident", "finding", "receipt", "line", "approval", "vote", "override",
    }  # fmt: skip
    made = {(event["entity"]["type"], event["activity_id"]) for event in events if event["activity_id"] == 1}
    assert {kind for kind, _ in made} == {"incident", "finding", "receipt", "line", "approval", "vote", "override"}
    journal.dispose()
