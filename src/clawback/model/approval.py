"""A person's word on one step: what was asked, of whom, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from clawback.model.incident import Phase

__all__ = ["Approval", "ApprovalState", "Vote"]


class ApprovalState(StrEnum):
    """pending → granted → used, or denied, or expired. Only `granted` lets the step be made, once."""

    PENDING = "pending"
    GRANTED = "granted"
    USED = "used"
    DENIED = "denied"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One person's answer. `channel` is the way it came: `cli`, `prefect`, `slack` …"""

    who: str
    grant: bool
    reason: str
    channel: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One question, bound to one step with exactly these parameters.

    digest      SHA-256, hexadecimal, of the incident, the action and its parameters
    nonce       32 hexadecimal digits that an answer must repeat: it is for this question and no other
    shown       the diff that the person is shown
    asked_by    who wants the step made
    quorum      grants needed; one denial denies
    approvers   who may answer; empty: anybody but those whom `separate` excludes
    separate    whoever asked, or contained the agent, may not grant it
    expires_ns  after it a pending one is denied, and a granted one no longer counts
    """

    id: str
    incident: str
    key: str
    action: str
    phase: Phase
    digest: str
    nonce: str
    shown: tuple[str, ...]
    asked_by: str
    quorum: int
    approvers: tuple[str, ...]
    separate: bool
    seconds: int
    asked_ns: int
    expires_ns: int
    state: ApprovalState
    votes: tuple[Vote, ...] = ()
