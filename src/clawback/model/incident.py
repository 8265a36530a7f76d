"""Findings, incidents and receipts: the record that everything downstream is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from clawback.model.events import Severity
from clawback.model.level import Enforcement, Level

__all__ = [
    "DRIFT",
    "PLAYBOOK_JOINS",
    "UNDOING",
    "Finding",
    "Incident",
    "IncidentStatus",
    "Orchestration",
    "Phase",
    "Receipt",
    "ReceiptState",
    "TimelineEntry",
]

DRIFT = "drift: "
"""How the proof of a step begins that was verified once and was seen not to hold since."""
UNDOING = "undoing began"
"""The timeline's line of an incident that somebody undoes."""
PLAYBOOK_JOINS = "playbook joins"
"""The timeline's line of a playbook, named in its detail, that a finding brought to an open incident."""


class Phase(StrEnum):
    """The phases of NIST SP 800-61r2, with containment, eradication and recovery told apart."""

    IDENTIFY = "identify"
    CONTAIN = "contain"
    ERADICATE = "eradicate"
    RECOVER = "recover"
    POST_INCIDENT = "post-incident"

    @property
    def csf(self) -> str:
        """The CSF 2.0 function that SP 800-61r3 files the phase under."""
        return {
            Phase.IDENTIFY: "DETECT",
            Phase.CONTAIN: "RESPOND",
            Phase.ERADICATE: "RESPOND",
            Phase.RECOVER: "RECOVER",
            Phase.POST_INCIDENT: "IDENTIFY",
        }[self]


class IncidentStatus(StrEnum):
    """`open` while anything is pending, failed or unverified; `closed` only when everything was verified."""

    OPEN = "open"
    CLOSED = "closed"


class Orchestration(StrEnum):
    """Who drives the playbook: a Prefect flow, or the journal alone because Prefect could not be reached."""

    NONE = "none"  # no playbook has started yet
    PREFECT = "prefect"
    DEGRADED = "degraded"


class ReceiptState(StrEnum):
    """How far an action has come. Only `verified`, `reverted` and `already_absent` claim anything about the world."""

    AWAITING = "awaiting"  # a person's approval; nothing was done
    INTENDED = "intended"
    APPLIED = "applied"
    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    FAILED = "failed"
    REVERT_PENDING = "revert_pending"
    REVERTED = "reverted"
    REVERT_FAILED = "revert_failed"
    ALREADY_ABSENT = "already_absent"
    ORPHANED = "orphaned"
    ACCEPTED = "accepted"  # a person lets it stand as it is, whatever that is; `Receipt.error` says who, and why

    @property
    def settled(self) -> bool:
        """Nothing is left to be done or to be seen: an incident closes when all its receipts are."""
        return self in {
            ReceiptState.VERIFIED,
            ReceiptState.REVERTED,
            ReceiptState.ALREADY_ABSENT,
            ReceiptState.ACCEPTED,
        }

    @property
    def taken_back(self) -> bool:
        """Somebody undid it, or began to."""
        return self in {
            ReceiptState.REVERT_PENDING,
            ReceiptState.REVERTED,
            ReceiptState.REVERT_FAILED,
            ReceiptState.ALREADY_ABSENT,
            ReceiptState.ORPHANED,
        }


_PARTS = ("component:", "policy:")  # see `Event.subject`


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A detector's claim about one agent. `resource` is what was reached for: a path, a host, a system call.

    `reflex` is the highest level of the ladder that may be applied at once, None where the alert is for a person.
    `events` are the uids of the events it rests on; `summary` is for people and may quote the agent, bounded.
    """

    detector: str
    agent: str
    instance: str
    severity: Severity
    technique: str
    resource: str
    policy: str
    policy_version: int
    title: str
    summary: str
    time_ns: int
    events: tuple[str, ...]
    reflex: Level | None = None
    attack: tuple[str, ...] = ()
    atlas: tuple[str, ...] = ()
    asi: tuple[str, ...] = ()
    seed_asi: tuple[str, ...] = ()
    attempts: tuple[tuple[str, str], ...] = ()  # (kind, target) of `Attempt`s that recovery must see denied

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What makes two findings one: never their text."""
        return (self.instance, self.technique, self.resource, self.policy_version)

    @property
    def about_agent(self) -> bool:
        """It is about an agent, not about a part of Clawback or a policy."""
        return not self.agent.startswith(_PARTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the journal knows of one action of one incident.

    `key` is the action's idempotency key within the incident; `captured` is all that undoing needs; `proof` says what
    was observed and how. Times are Unix nanoseconds, 0 where the step was not reached.
    """

    id: int
    incident: str
    key: str
    action: str
    phase: Phase
    state: ReceiptState
    params: dict[str, Any]
    captured: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    enforcement: Enforcement | None = None
    proof: str = ""
    error: str = ""
    actor: str = ""
    attempts: int = 0
    intended_ns: int = 0
    captured_ns: int = 0
    applied_ns: int = 0
    verified_ns: int = 0
    reverted_ns: int = 0

    @property
    def drifted(self) -> bool:
        """It was verified once, and was seen not to hold since."""
        return self.state is ReceiptState.UNVERIFIED and self.proof.startswith(DRIFT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One line of what happened, in order. `at_ns` is Unix nanoseconds."""

    at_ns: int
    phase: Phase
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident as read at one moment: frozen, re-read to see what came after."""

    id: str
    agent: str
    instance: str
    status: IncidentStatus
    phase: Phase
    severity: Severity
    playbook: str
    drill: bool
    orchestration: Orchestration
    opened_ns: int
    closed_ns: int = 0
    findings: tuple[Finding, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()

    @property
    def about_agent(self) -> bool:
        """It is about an agent, not about a part of Clawback or a policy."""
        return not self.agent.startswith(_PARTS)

    @property
    def playbooks(self) -> tuple[str, ...]:
        """The one that it was opened with, then those that joined, in that order."""
        joined = (line.detail for line in self.timeline if line.what == PLAYBOOK_JOINS)
        return tuple(name for name in dict.fromkeys((self.playbook, *joined)) if name)

    @property
    def undoing(self) -> str:
        """Who began to undo it and why; empty where nobody did."""
        said = [line.detail for line in self.timeline if line.what == UNDOING]
        return (said[-1] or "no reason on record") if said else ""
