"""What an action is: the declaration that every file in `actions/` makes, and that `clawback.response` drives.

An action is seven functions and what a reader must know before running it. The functions share no memory: what
`capture` and `apply` return is written to the journal as JSON, and `verify`, `revert` and `verify_reverted` get
only that, perhaps in another process, perhaps after a crash. Returned mappings therefore hold plain JSON and never
a secret's value.

plan             what it would do, touching nothing; makes the read-only checks too
capture          read the state that undoing and proving need
apply            make the change; converges from whatever is there, so that running it twice is running it once
verify           observe the effect from the victim's side
recheck          whether what was verified still holds; None where the step no longer claims that (optional)
revert           undo from the captured record alone
verify_reverted  observe that it is undone

Each may raise `Unreachable` (the step stays pending and is tried again by `clawback resume`) or another
`ClawbackError` (the step failed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from clawback.model import Approval, Enforcement, Incident, Phase

if TYPE_CHECKING:
    from clawback.world import World

__all__ = ["Action", "Context", "Params", "Plan", "Record", "Reversibility", "Verification"]

Record = Mapping[str, Any]


class Params(BaseModel):
    """Base of every action's parameters: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reversibility(StrEnum):
    """reversible: `revert` restores what was. compensable: it restores the function by other means (a new key).
    irreversible: nothing undoes it, and the action says so.
    """

    REVERSIBLE = "reversible"
    COMPENSABLE = "compensable"
    IRREVERSIBLE = "irreversible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an action is given besides its parameters: the incident as it stands, who acts, the way outside, and what
    persons were asked in this incident, as it stands when it is called.

    history  the newest 32 incidents of an agent, oldest first, this one too if it is among them; drills apart from real
             ones
    reread   the incident as the journal has it at this moment, with the receipt of the step that is being made
    other    any incident by its id, as it stands when it is called; None for one that there is not
    """

    incident: Incident
    world: World
    actor: str
    history: Callable[[str], tuple[Incident, ...]] = lambda _agent: ()
    approvals: Callable[[], tuple[Approval, ...]] = tuple
    reread: Callable[[], Incident] | None = None
    other: Callable[[str], Incident | None] = lambda _incident: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A dry run: `changes` as lines of a diff (`- old`, `+ new`), `checks` as what was read and found."""

    changes: tuple[str, ...]
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was observed. `verified` only if the postcondition was seen; `proof` says what was tried and seen."""

    verified: bool
    enforcement: Enforcement
    proof: str
    details: dict[str, Any] = field(default_factory=dict)


P = TypeVar("P", bound=Params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action(Generic[P]):
    """One step of a response, declared. The catalogue refuses one that leaves anything out.

    id            `room.verb`, unique: `agent.freeze`, `aws.rotate-keys`
    summary       one sentence, imperative
    needs         capabilities it uses, `part:verb` (`core:freeze`, `iam:UpdateAccessKey`, `vault:auth/token/create`)
    scope         the most it may touch, in words
    d3fend        MITRE D3FEND technique, `D3-…`; empty where none fits
    openc2        OpenC2 verb (`contain`, `deny`, `restore`, `update` …)
    key           idempotency key of these parameters within one incident
    reflex        may run before any flow starts (reversible and idempotent only)
    recheck       reads only, and cheaply: it is asked again and again, for hours after the incident was closed. It says
                  no only of what nobody had the right to do: what the response itself went on to undo, what a person
                  lifted, what ended by its time is None
    consent       a person must say yes first, unless a rule says otherwise: it touches more than one agent, or destroys
                  what somebody may want back, and nothing is lost by waiting. Never true of containment
    """

    id: str
    summary: str
    phase: Phase
    reversibility: Reversibility
    needs: frozenset[str]
    scope: str
    openc2: str
    d3fend: str = ""
    reflex: bool = False
    consent: bool = False
    params: type[P]
    key: Callable[[P], str]
    plan: Callable[[Context, P], Plan]
    capture: Callable[[Context, P], Record]
    apply: Callable[[Context, P, Record], Record]
    verify: Callable[[Context, P, Record, Record], Verification]
    recheck: Callable[[Context, P, Record, Record], Verification | None] | None = None
    revert: Callable[[Context, P, Record], None] | None = None
    verify_reverted: Callable[[Context, P, Record], Verification] | None = None
