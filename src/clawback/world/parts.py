"""The enforcement side of the world: what actions may ask of the core and the gateway.

All calls raise `Unreachable` where the part does not answer, `NotFound` for an unknown agent, policy or version, and
`Refused` where the part understands and declines (a hold, another instance, a peer without the verb).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from clawback.model import (
    AgentInfo,
    Attempt,
    AttemptResult,
    CredentialRef,
    Decision,
    Draft,
    EvidenceBundle,
    Halt,
    HaltedAgent,
    HaltReport,
    LaunchSpec,
    Level,
    LevelResult,
    Narrowing,
    PolicyVersion,
    Quarantine,
    Quarantining,
    Selector,
)

__all__ = ["Core", "Policies", "SecretStore", "Tickets"]


class Core(Protocol):
    """The enforcement core of this host."""

    def agents(self) -> tuple[AgentInfo, ...]:
        """All agents the core knows, running or not."""
        ...

    def agent(self, agent: str) -> AgentInfo:
        """One agent by its stable id."""
        ...

    def launch(self, spec: LaunchSpec) -> AgentInfo:
        """Start an agent; `Refused` under a hold."""
        ...

    def contain(
        self, agent: str, level: Level, *, instance: str = "", reason: str, by: str, incident: str = ""
    ) -> LevelResult:
        """Make one level true and keep it so: the hold is durable before the kernel is touched.

        With `instance` given, another instance is `Refused`. Says what was observed, `none` where nothing was.
        """
        ...

    def quarantine(
        self,
        agent: str,
        levels: Sequence[Level],
        *,
        instance: str = "",
        reason: str,
        by: str,
        incident: str = "",
    ) -> Quarantine:
        """Freeze, isolate, or both, by one order; and each read back when all had been made true."""
        ...

    def quarantine_many(self, orders: Sequence[Quarantining], *, by: str) -> tuple[Quarantine, ...]:
        """The same for many agents. Who is not in the answer was not held by this; `quarantine` says why."""
        ...

    def strike(self, agents: Mapping[str, str], *, drills: bool = False) -> tuple[AgentInfo, ...]:
        """Freeze these instances (agent → instance) ahead of the orders that follow: no hold is placed, nothing read.

        Returned are the agents whose kernel took it. One in a drill is left alone unless `drills` are meant too.
        """
        ...

    def probe(self, agent: str, level: Level, *, instance: str = "") -> LevelResult:
        """Read one level's postcondition back, from inside where that is where it shows; changes nothing.

        Of an earlier `instance` than the one that is there only `stop` can be asked: whether anything of it is left.
        """
        ...

    def release(
        self, agent: str, *, levels: Sequence[Level] = (), reason: str, by: str, incident: str = ""
    ) -> tuple[LevelResult, ...]:
        """Undo the levels given (all of the order's where none are), in reverse, of this incident's order and what was
        ordered by hand; without an incident, of the one order there is. A result's enforcement is how much of the level
        still holds: `none` is a complete release; `full` after seal or stop, which only a relaunch undoes, and where
        another order stands.
        """
        ...

    def relaunch(
        self, agent: str, *, policy_version: int, policy_text: str, reason: str, by: str, policy: str = ""
    ) -> AgentInfo:
        """End what is left of the agent and start its recorded command anew, under this version and text of its policy,
        or of `policy`, with the secrets that the store holds now. `Refused` while a hold stands.
        """
        ...

    def attempt(self, agent: str, attempts: Sequence[Attempt]) -> tuple[AttemptResult, ...]:
        """Try each from inside the agent's sandbox, under its own namespaces, filters and cgroup."""
        ...

    def evidence(self, agent: str, *, incident: str, transcripts: Sequence[str] = ()) -> EvidenceBundle:
        """Collect a bounded, redacted, hashed snapshot. Works on a frozen tree and never thaws it. With `transcripts`,
        patterns of files inside (`/sandbox/*/x.jsonl`), it is of those and the agent's records alone.
        """
        ...

    def halt(self, selector: Selector, level: Level, *, reason: str, by: str, incident: str = "") -> HaltReport:
        """Freeze every agent that the selector means, hold them up to `level`, and refuse starts that match."""
        ...

    def halts(self) -> tuple[Halt, ...]:
        """The halts that stand."""
        ...

    def lift(self, halt: str, *, reason: str, by: str) -> tuple[HaltedAgent, ...]:
        """End a halt: what nothing else holds goes on. `Refused` where whoever asks may not."""
        ...


class Policies(Protocol):
    """The policy version store, by way of the gateway that decides with it."""

    def versions(self, policy: str) -> tuple[PolicyVersion, ...]:
        """All versions, oldest first."""
        ...

    def read(self, policy: str, version: int) -> str:
        """The text of one version."""
        ...

    def active(self, policy: str) -> PolicyVersion:
        """The version the engine decides with at this moment, as the engine itself says."""
        ...

    def put(
        self, policy: str, text: str, *, author: str, reason: str, known_good: bool = False, incident: str = ""
    ) -> PolicyVersion:
        """Record and activate a text. Equal to the active one: that version, unchanged. Malformed: `InvalidInput`."""
        ...

    def mark_known_good(self, policy: str, version: int, *, author: str) -> PolicyVersion:
        """Mark a version as what recovery may return to."""
        ...

    def restore(self, policy: str, version: int, *, author: str, reason: str, incident: str = "") -> PolicyVersion:
        """Activate a new version whose text equals `version`'s; if the active text equals it, the active one."""
        ...

    def draft(self, policy: str, version: int, narrowing: Narrowing, *, attempts: Sequence[Attempt] = ()) -> Draft:
        """A narrower text than that of a version, and what the engine would say to `attempts` by it. Nobody decides by
        it, and nothing is recorded.
        """
        ...

    def decide(self, policy: str, attempt: Attempt) -> Decision:
        """What the active version says to an `http` or `connect` attempt, without making it."""
        ...


class SecretStore(Protocol):
    """Where the values of agents' credentials lie, outside every log, journal and ticket.

    One value is current for each (agent, name). `stage` sets the next beside it, `promote` makes the next current and
    the current old, `discard` destroys the old. The old one is kept so that a proof can use it.
    """

    def current(self, agent: str, name: str) -> str:
        """The value that the agent was or will be given. `NotFound` where there is none."""
        ...

    def old(self, agent: str, name: str) -> str | None:
        """The value that was current before the last `promote`, until it is discarded."""
        ...

    def staged(self, agent: str, name: str) -> str | None:
        """The next value, if one was staged and not yet promoted."""
        ...

    def put(self, agent: str, ref: CredentialRef, value: str) -> None:
        """Set the current value and what identifies it."""
        ...

    def begin(self, agent: str, name: str) -> bool:
        """Note durably that an issuer is about to be asked for a next value.

        True where an earlier note stands: it was asked then, perhaps answered, and nothing was staged, so the issuer
        may hold a credential whose value is lost.
        """
        ...

    def asked(self, agent: str, name: str) -> bool:
        """Whether a note of `begin` stands."""
        ...

    def stage(self, agent: str, ref: CredentialRef, value: str) -> None:
        """Set the next value, durably, before it is used; ends what `begin` noted."""
        ...

    def abandon(self, agent: str, name: str) -> None:
        """Destroy the next value, and end what `begin` noted: what was issued for it is dead, or never was."""
        ...

    def staged_ref(self, agent: str, name: str) -> CredentialRef | None:
        """What identifies the staged value."""
        ...

    def promote(self, agent: str, name: str, *, keep_old: bool = False) -> None:
        """Next becomes current, current becomes old. Without a staged value nothing happens.

        With `keep_old` an old value that is there stays the old one: what was current was a replacement itself, and
        the proof needs the one before it.
        """
        ...

    def discard(self, agent: str, name: str) -> None:
        """Destroy the old value."""
        ...

    def version(self, agent: str, name: str) -> str:
        """A random name of the current value, another one each time that it is set. Tells nothing of the value."""
        ...

    def refs(self, agent: str) -> tuple[CredentialRef, ...]:
        """What the agent holds now, without values."""
        ...


class Tickets(Protocol):
    """Where tickets go. The built-in one writes files; a connector may write to a tracker as well."""

    def write(self, incident: str, *, markdown: str, jira: str) -> dict[str, str]:
        """Create or replace the incident's ticket; returns where it is: `markdown`, `jira` paths, and `tracker`: the
        issue's key, `url`, `status` where one is configured. The files are written before the tracker is asked.
        """
        ...

    def read(self, incident: str) -> dict[str, str]:
        """The ticket's files as they stand, by the same keys, texts instead of paths. Empty where there is none."""
        ...

    def tracked(self, incident: str) -> str | None:
        """What the tracker's issue says, as `reports.adf.words` puts it; None where there is none, or no tracker."""
        ...
