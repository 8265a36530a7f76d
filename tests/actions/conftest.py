"""A world in memory, an incident in it, and a way to drive one action as the engine does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clawback.action import Action, Context, Params, Record, Verification
from clawback.model import (
    Finding,
    Incident,
    IncidentStatus,
    Level,
    Orchestration,
    Phase,
    Receipt,
    ReceiptState,
    Severity,
)


def finding(**changes: Any) -> Finding:
    values: dict[str, Any] = {
        "detector": "secrets.outside-allow-list",
        "agent": "a",
        "instance": "i1",
        "severity": Severity.CRITICAL,
        "technique": "T1552.001",
        "resource": "/root/.aws/credentials",
        "policy": "support",
        "policy_version": 2,
        "title": "Secret read outside the allow-list",
        "summary": "opened the decoy /root/.aws/credentials",
        "time_ns": 1_000_000_000,
        "events": ("e1",),
        "reflex": Level.ISOLATE,
        "asi": ("ASI03",),
        "attack": ("T1552.001",),
        "attempts": (("open", "/root/.aws/credentials"), ("connect", "files.partner.test:443")),
    }
    return Finding(**{**values, **changes})


def incident(**changes: Any) -> Incident:
    values: dict[str, Any] = {
        "id": "INC-1",
        "agent": "a",
        "instance": "i1",
        "status": IncidentStatus.OPEN,
        "phase": Phase.IDENTIFY,
        "severity": Severity.CRITICAL,
        "playbook": "contain-rogue-agent",
        "drill": False,
        "orchestration": Orchestration.DEGRADED,
        "opened_ns": 1_002_000_000,
        "findings": (finding(),),
    }
    return Incident(**{**values, **changes})


def receipt(action: str, **changes: Any) -> Receipt:
    values: dict[str, Any] = {
        "id": 1,
        "incident": "INC-1",
        "key": action,
        "action": action,
        "phase": Phase.CONTAIN,
        "state": ReceiptState.VERIFIED,
        "params": {"agent": "a"},
    }
    return Receipt(**{**values, **changes})


class Drive:
    """One action, step by step; what passes between steps goes through JSON, as through the journal."""

    def __init__(self, action: Action[Any], context: Context, **params: Any) -> None:
        self.action, self.context = action, context
        self.params: Params = action.params(**params)
        self.captured: Record = {}
        self.outcome: Record = {}

    def run(self) -> Verification:
        self.captured = self.captured or json.loads(json.dumps(dict(self.action.capture(self.context, self.params))))
        self.outcome = json.loads(json.dumps(dict(self.action.apply(self.context, self.params, self.captured))))
        return self.verify()

    def verify(self) -> Verification:
        return self.action.verify(self.context, self.params, self.captured, self.outcome)

    def revert(self) -> Verification:
        assert self.action.revert
        assert self.action.verify_reverted
        self.action.revert(self.context, self.params, self.captured)
        return self.action.verify_reverted(self.context, self.params, self.captured)


@pytest.fixture
def make_incident() -> Any:
    return incident


@pytest.fixture
def make_finding() -> Any:
    return finding


@pytest.fixture
def make_receipt() -> Any:
    return receipt


@pytest.fixture
def drive(there: Any) -> Any:
    """`drive(ACTION, agent="a", …)`; `on=` another incident."""

    def start(action: Action[Any], *, on: Incident | None = None, **params: Any) -> Drive:
        return Drive(action, Context(incident=on or incident(), world=there.world, actor="tester"), **params)

    return start
