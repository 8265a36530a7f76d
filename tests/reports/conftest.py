"""Incidents to report on: an ordinary one, and one in which an agent chose every string that it could."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clawback.model import (
    Enforcement,
    Finding,
    Incident,
    IncidentStatus,
    Level,
    Orchestration,
    Phase,
    Receipt,
    ReceiptState,
    Severity,
    TimelineEntry,
)

T0 = 1_700_000_000_000_000_000
MS = 1_000_000


def _receipt(number: int, action: str, phase: Phase, at: int, **changes: Any) -> Receipt:
    values: dict[str, Any] = {
        "id": number,
        "incident": "INC-1",
        "key": action,
        "action": action,
        "phase": phase,
        "state": ReceiptState.VERIFIED,
        "params": {"agent": "support-1"},
        "enforcement": Enforcement.FULL,
        "proof": f"{action} was seen",
        "attempts": 1,
        "intended_ns": T0 + at * MS,
        "applied_ns": T0 + (at + 1) * MS,
        "verified_ns": T0 + (at + 2) * MS,
    }
    return Receipt(**{**values, **changes})


def build(text: str = "ordinary", *, findings: int = 1, lines: int = 3) -> Incident:
    scope = {
        "agent": {"id": "support-1", "tenant": text, "team": text, "tags": [text]},
        "instance": "i1",
        "instructions": text,
        "policy": {"name": "support", "version": 2},
        "credentials": [{"kind": "vault-token", "name": text, "identifiers": {"accessor": text}}],
        "tool_calls": [text],
        "destinations": [text],
        "data": [text],
        "assessment": {"verdict": "threat", "reasons": [text]},
        "blast_radius": {"level": "medium", "why": text, "credentials": 1, "agents_sharing_credentials": [text]},
    }
    return Incident(
        id="INC-20261120-ABCDEF",
        agent="support-1",
        instance="i1",
        status=IncidentStatus.OPEN,
        phase=Phase.POST_INCIDENT,
        severity=Severity.CRITICAL,
        playbook="contain-rogue-agent",
        drill=False,
        orchestration=Orchestration.PREFECT,
        opened_ns=T0 + 1 * MS,
        findings=tuple(
            Finding(
                detector="secrets.outside-allow-list",
                agent="support-1",
                instance="i1",
                severity=Severity.CRITICAL,
                technique="T1552.001",
                resource=text,
                policy="support",
                policy_version=2,
                title=text,
                summary=text,
                time_ns=T0 + number * MS,
                events=("e1",),
                reflex=Level.ISOLATE,
                attack=("T1552.001",),
                asi=("ASI03",),
                seed_asi=("ASI-03",),
                attempts=(("open", text), ("http", f"GET http://{text}/")),
            )
            for number in range(findings)
        ),
        receipts=(
            _receipt(1, "agent.freeze", Phase.CONTAIN, 2, outcome={"at_ns": T0 + 2 * MS + 500_000}),
            _receipt(2, "agent.isolate", Phase.CONTAIN, 4),
            _receipt(3, "incident.scope", Phase.IDENTIFY, 8, outcome=scope),
            _receipt(
                4, "evidence.collect", Phase.CONTAIN, 10, outcome={"folder": text, "files": 3, "sha256": "ab" * 32}
            ),
            _receipt(5, "vault.rotate-token", Phase.ERADICATE, 20, proof=text),
            _receipt(6, "aws.rotate-key", Phase.ERADICATE, 40),
            _receipt(7, "agent.relaunch", Phase.RECOVER, 60),
            _receipt(8, "policy.validate", Phase.RECOVER, 80, proof=text),
            _receipt(
                9,
                "incident.review",
                Phase.POST_INCIDENT,
                90,
                outcome={
                    "root_causes": [{"category": "policy too wide", "because": text}],
                    "suggestions": [text],
                    "policy_diff": f"--- a\n+++ b\n+  domain: {text}",
                },
            ),
        ),
        timeline=tuple(
            TimelineEntry(at_ns=T0 + number * MS, phase=Phase.CONTAIN, what=text, detail=text)
            for number in range(lines)
        ),
    )


@pytest.fixture
def make() -> Callable[..., Incident]:
    return build
