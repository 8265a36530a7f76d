"""What the credential actions share: finding what an agent holds, and watching a refusal until it can be believed."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from pydantic import Field

from clawback.action import Context, Params, Record, Verification
from clawback.errors import InvalidInput, NotFound, Unreachable
from clawback.model import CredentialRef, Enforcement, Receipt, ReceiptState

__all__ = [
    "CredentialParams",
    "Probe",
    "access_key_of",
    "as_record",
    "credential_key",
    "enforcement",
    "from_record",
    "held",
    "key_id",
    "least",
    "other_holders",
    "rechecked",
    "sealed",
    "seconds",
    "unsealed",
    "verified_receipt",
    "watch",
    "watch_accepted",
    "watch_refused",
]

Probe = Callable[[], tuple[bool, str]]

_PATIENCE_SECONDS = 1.0
_INTERVAL_SECONDS = 0.1
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"(\d{1,9})([smhd])")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


class CredentialParams(Params):
    """Which credential: the agent, and the name under `/run/secrets`."""

    agent: str = Field(min_length=1, max_length=128)
    name: str = Field(min_length=1, max_length=128)


def credential_key(params: CredentialParams) -> str:
    """One step for each credential in an incident."""
    return f"{params.agent}/{params.name}"


def held(ctx: Context, params: CredentialParams, *kinds: str) -> CredentialRef:
    """What the agent holds under that name now. `InvalidInput` where it is of another kind."""
    for ref in ctx.world.secrets.refs(params.agent):
        if ref.name == params.name:
            if ref.kind not in kinds:
                raise InvalidInput(
                    f"{params.agent}'s {params.name} is a {ref.kind}, not a {' or '.join(kinds)}",
                    hint="choose the action for that kind of credential",
                )
            return ref
    raise NotFound(
        f"{params.agent} holds nothing named {params.name}", hint="`clawback agents --json` lists what it holds"
    )


def access_key_of(ctx: Context, agent: str, user: str) -> str | None:
    """The present access key of that user that the agent holds, as a credential; None where it holds none."""
    for ref in ctx.world.secrets.refs(agent):
        if ref.kind == "aws-access-key" and ref.identifiers.get("user") == user:
            return ctx.world.secrets.current(agent, ref.name)
    return None


def key_id(credential: str) -> str:
    """The id in an AWS credential, which is no secret; empty where it cannot be read."""
    try:
        return str(json.loads(credential)["access_key_id"])
    except (ValueError, KeyError, TypeError):
        return ""


def least(*bounds: int) -> int:
    """The tightest bound, where 0 is none."""
    return min((bound for bound in bounds if bound), default=0)


def seconds(duration: str) -> int:
    """Vault's way of writing a duration (`90`, `1h`, `1h30m`, `2d`) in seconds; 0 where it is empty or not one."""
    if duration.isdecimal():
        return int(duration)
    if not _DURATION.fullmatch(duration):
        return 0
    return sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(duration))


def other_holders(ctx: Context, agent: str, ref: CredentialRef, identifier: str) -> tuple[str, ...]:
    """Other agents that hold the same credential, for the plan; they lose it too."""
    try:
        agents = ctx.world.core.agents()
    except Unreachable:
        return ("(the core does not answer: other holders unknown)",)
    return tuple(
        info.agent
        for info in agents
        if info.agent != agent
        and any(
            theirs.kind == ref.kind and theirs.identifiers.get(identifier) == ref.identifiers.get(identifier)
            for theirs in info.credentials
        )
    )


def as_record(ref: CredentialRef) -> dict[str, Any]:
    """For the journal."""
    return asdict(ref)


def from_record(record: Record) -> CredentialRef:
    """From the journal."""
    return CredentialRef(kind=record["kind"], name=record["name"], identifiers=dict(record["identifiers"]))


def sealed(document: dict[str, Any]) -> str:
    """A policy document for the journal, such that it comes back to the letter.

    The journal blanks what looks like a secret, by key and by content; in a trust policy that could be a condition
    (`token.actions.githubusercontent.com:sub`), and what is put back must not be a blanked one.
    """
    return base64.b64encode(json.dumps(document).encode()).decode()


def unsealed(text: str) -> dict[str, Any]:
    """The document again."""
    return dict(json.loads(base64.b64decode(text)))


def verified_receipt(ctx: Context, action: str, params: CredentialParams) -> Receipt | None:
    """The incident's verified receipt of an action on the same credential."""
    for receipt in ctx.incident.receipts:
        if (
            receipt.action == action
            and receipt.state is ReceiptState.VERIFIED
            and receipt.params.get("agent") == params.agent
            and receipt.params.get("name") == params.name
        ):
            return receipt
    return None


def rechecked(*, holds: bool, proof: str) -> Verification:
    """What a second look came to."""
    return Verification(verified=holds, enforcement=Enforcement.FULL if holds else Enforcement.NONE, proof=proof)


def watch_refused(probe: Probe, settle: float) -> tuple[bool, str]:
    """Probe until a refusal has lasted `settle` seconds: a cloud may refuse once, and then accept from a stale replica.

    (refused, the last answer). Gives up a second after three times `settle`.
    """
    began = time.monotonic()
    refused_since: float | None = None
    while True:
        accepted, answer = probe()
        now = time.monotonic()
        if accepted:
            refused_since = None
            if now - began > 3 * settle + _PATIENCE_SECONDS:
                return False, answer
        else:
            refused_since = now if refused_since is None else refused_since
            if now - refused_since >= settle:
                return True, answer
            if now - began > 6 * settle + _PATIENCE_SECONDS:  # it flickers
                return False, answer
        time.sleep(_INTERVAL_SECONDS)


def watch(read: Callable[[], int], *, until: int) -> tuple[bool, int]:
    """Read a number until it is as wanted, or a second has passed: (it is, the last one read)."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (now := read()) != until and time.monotonic() < deadline:
        time.sleep(_INTERVAL_SECONDS)
    return now == until, now


def watch_accepted(probe: Probe, settle: float) -> tuple[bool, str]:
    """Probe until it is accepted: what was issued just now may not be known everywhere. (accepted, the last answer)."""
    deadline = time.monotonic() + 3 * settle + _PATIENCE_SECONDS
    while True:
        accepted, answer = probe()
        if accepted or time.monotonic() > deadline:
            return accepted, answer
        time.sleep(_INTERVAL_SECONDS)


def enforcement(*, verified: bool, missing: tuple[str, ...]) -> Enforcement:
    """Full only where nothing of the proof is missing."""
    if not verified:
        return Enforcement.NONE
    return Enforcement.PARTIAL if missing else Enforcement.FULL
