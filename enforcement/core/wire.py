"""What goes over the core's socket: request bodies checked to the last key, and the model's types as JSON."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from clawback.errors import ClawbackError, InvalidInput, NotEnforced, NotFound, Refused, Unreachable
from clawback.model import (
    AgentInfo,
    Attempt,
    AttemptResult,
    CredentialRef,
    EvidenceBundle,
    Halt,
    HaltedAgent,
    HaltReport,
    LaunchSpec,
    Level,
    LevelResult,
    Quarantine,
    Quarantining,
    Selector,
)

__all__ = [
    "AGENT",
    "AGENTS",
    "ATTEMPTS",
    "BUNDLE",
    "ERRORS",
    "HALT",
    "HALTED",
    "HALTS",
    "MAX_BODY",
    "MAX_POLICY",
    "QUARANTINE",
    "QUARANTINES",
    "RESULT",
    "RESULTS",
    "AttemptBody",
    "ContainBody",
    "EvidenceBody",
    "HaltBody",
    "LaunchBody",
    "LiftBody",
    "QuarantineBody",
    "QuarantinesBody",
    "RelaunchBody",
    "ReleaseBody",
    "StrikeBody",
    "level",
    "read",
]

MAX_POLICY = 1 << 20
"""Characters of a policy file."""

MAX_BODY = 4 << 20
"""Bytes of a request."""

AGENT = TypeAdapter(AgentInfo)
AGENTS = TypeAdapter(tuple[AgentInfo, ...])
RESULT = TypeAdapter(LevelResult)
RESULTS = TypeAdapter(tuple[LevelResult, ...])
ATTEMPTS = TypeAdapter(tuple[AttemptResult, ...])
BUNDLE = TypeAdapter(EvidenceBundle)
QUARANTINE = TypeAdapter(Quarantine)
QUARANTINES = TypeAdapter(tuple[Quarantine, ...])
HALT = TypeAdapter(HaltReport)
HALTS = TypeAdapter(tuple[Halt, ...])
HALTED = TypeAdapter(tuple[HaltedAgent, ...])

ERRORS: dict[str, tuple[int, type[ClawbackError]]] = {
    "InvalidInput": (400, InvalidInput),
    "Refused": (403, Refused),
    "NotFound": (404, NotFound),
    "NotEnforced": (409, NotEnforced),
    "Unreachable": (503, Unreachable),
    "ClawbackError": (500, ClawbackError),
}
"""Name on the wire → HTTP status and type."""


def level(value: object) -> Level:
    """A level by its word or its number. `ValueError` for anything else."""
    if isinstance(value, str) and value.upper() in Level.__members__:
        return Level[value.upper()]
    if type(value) is int:
        return Level(value)
    raise ValueError(f"no such level; one of {', '.join(one.word for one in Level)}")


def _known_keys(kind: type) -> BeforeValidator:
    # pydantic ignores keys that a standard dataclass lacks, and takes no setting for that at the edge.
    known = {field.name for field in dataclasses.fields(kind)}

    def check(value: Any) -> Any:
        if isinstance(value, dict) and (unknown := sorted(str(key)[:64] for key in value if key not in known)):
            raise ValueError(f"unknown key {unknown[0]!r}")
        return value

    return BeforeValidator(check)


def _known_credentials(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(refs := value.get("credentials"), list):
        known = {field.name for field in dataclasses.fields(CredentialRef)}
        for ref in refs:
            if isinstance(ref, dict) and (unknown := sorted(str(key)[:64] for key in ref if key not in known)):
                raise ValueError(f"credentials: unknown key {unknown[0]!r}")
    return value


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Name = Annotated[str, Field(max_length=128)]
Text = Annotated[str, Field(max_length=4096)]
AnyLevel = Annotated[Level, BeforeValidator(level)]


class LaunchBody(_Body):
    """`stdio` names descriptors passed over `core-fds.sock`; empty: none, output goes to the sandbox's log."""

    spec: Annotated[LaunchSpec, _known_keys(LaunchSpec), BeforeValidator(_known_credentials)]
    stdio: Annotated[str, Field(max_length=64)] = ""


Seconds = Annotated[float, Field(ge=0, le=10 * 366 * 86_400)]


class OneOrder(_Body):
    """Of one agent among many."""

    agent: Name
    instance: Name
    levels: Annotated[tuple[AnyLevel, ...], Field(max_length=8)]
    reason: Text
    incident: Name = ""

    @property
    def order(self) -> Quarantining:
        """As the core takes it."""
        return Quarantining(**dict(self))


class ContainBody(_Body):
    """One level of the ladder. `due_seconds` from now the hold is due to be looked at; 0: never. `allow`: responders
    (`ADDRESS:PORT`) that isolating leaves open; `readable`: paths that restricting does; null: as ordered before.
    """

    level: AnyLevel
    reason: Text
    by: Name
    instance: Name = ""
    incident: Name = ""
    due_seconds: Seconds = 0
    allow: Annotated[tuple[Name, ...], Field(max_length=64)] | None = None
    readable: Annotated[tuple[Text, ...], Field(max_length=64)] | None = None


class QuarantineBody(_Body):
    """Freeze, isolate, or both, and each looked at again."""

    levels: Annotated[tuple[AnyLevel, ...], Field(max_length=8)]
    reason: Text
    by: Name
    instance: Name = ""
    incident: Name = ""


class QuarantinesBody(_Body):
    """The same for many agents, of each the instance that is meant."""

    orders: Annotated[tuple[OneOrder, ...], Field(max_length=256)]
    by: Name


class StrikeBody(_Body):
    """Agent → the instance that is meant, of each that is to be frozen ahead of its order. `drills`: those in drills
    too.
    """

    agents: Annotated[dict[Name, Name], Field(max_length=1024)]
    drills: bool = False


class ReleaseBody(_Body):
    """No levels: all of the order's. No incident: the one holder's there is, or with `everyone` all holders'."""

    reason: Text
    by: Name
    levels: Annotated[tuple[AnyLevel, ...], Field(max_length=8)] = ()
    incident: Name = ""
    everyone: bool = False


class HaltBody(_Body):
    """Freeze, and hold up to `level`, whatever the selector means."""

    selector: Annotated[Selector, _known_keys(Selector)]
    level: AnyLevel
    reason: Text
    by: Name
    incident: Name = ""
    due_seconds: Seconds = 0


class LiftBody(_Body):
    """End a halt."""

    reason: Text
    by: Name


class RelaunchBody(_Body):
    """The version is recorded, the text is what is enforced; `policy` is the one they are of, empty: as before."""

    policy: Name = ""
    policy_version: int
    policy_text: Annotated[str, Field(max_length=MAX_POLICY)]
    reason: Text
    by: Name


class AttemptBody(_Body):
    """At most 64 at a time."""

    attempts: Annotated[tuple[Annotated[Attempt, _known_keys(Attempt)], ...], Field(max_length=64)]


class EvidenceBody(_Body):
    """`incident` may be empty: a snapshot on somebody's order. `memory`, and `transcripts`, patterns of files inside,
    take a verb of that name besides.
    """

    incident: Name = ""
    memory: bool = False
    transcripts: Annotated[tuple[Text, ...], Field(max_length=16)] = ()


B = TypeVar("B", bound=_Body)


def read(kind: type[B], body: bytes) -> B:
    """Check a request's body. `InvalidInput` names the key and never repeats a value."""
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        key = ".".join(str(part)[:64] for part in first["loc"]) or "body"
        raise InvalidInput(f"{key}: {first['msg'][:300]}", hint="the API is described in docs/core.md") from None
