"""Agents as the core knows them: what runs, how tightly, what it holds, and what holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

__all__ = [
    "AgentInfo",
    "AgentState",
    "Attempt",
    "AttemptResult",
    "CredentialRef",
    "Enforcement",
    "EvidenceBundle",
    "Hold",
    "LaunchSpec",
    "Level",
    "LevelResult",
]


class Level(IntEnum):
    """The quarantine ladder. Each call makes one level true; a hold is the set of levels that must stay true."""

    FREEZE = 1
    ISOLATE = 2
    RESTRICT = 3
    SEAL = 4
    STOP = 5

    @property
    def word(self) -> str:
        """The level as people write it: `freeze`, `isolate` …"""
        return self.name.lower()


class Enforcement(StrEnum):
    """How much of what was asked for was observed to hold."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


class AgentState(StrEnum):
    """Whether the agent's tree exists. Whether it is frozen, isolated … is its hold's matter."""

    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"  # it should run, and neither its shim nor its processes are there


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelResult:
    """What one level came to, as read back after the fact, never as intended.

    `observed` is a sentence for people ("4 of 4 processes frozen; connect from inside: ENETUNREACH"); `missing` names
    what was not enforced; `elapsed_ms` covers applying and reading back. `counts` is the same in numbers, as read back:

    processes, threads   alive at the reading
    frozen               processes of those that stand still
    sealed, walled       threads of those with the sealed filter, with Landlock's rules
    addresses            of interfaces inside the network namespace
    connections          sockets inside that have a peer
    leads_out            descriptors that lead out of the sandbox still
    secrets, unreadable  files under /run/secrets, those of them that read empty or are refused
    open                 descriptors and mappings of secrets and writable files, from before
    covered              secrets that lie under a cover of ours
    marks                mounts whose opens are refused
    limits               limits that are lowered

    A number that was not read is not there; 0 was seen to be none.
    """

    level: Level
    enforcement: Enforcement
    observed: str
    missing: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    elapsed_ms: float = 0.0
    at_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A durable order that an agent be kept at some levels, surviving the core, the host and the agent itself."""

    agent: str
    levels: tuple[Level, ...]
    reason: str
    by: str
    incident: str = ""
    placed_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRef:
    """A credential that an agent holds, by what identifies it, never by its value.

    kind           what `identifiers` carries
    vault-token    `accessor`; `policies` (comma-separated), `ttl`
    vault-lease    `prefix` (lease prefix, such as `database/creds/support`), `path` to issue anew from
    vault-kv       `mount`, `path`
    aws-access-key `user`, `access_key_id`
    aws-session    `role` (ARN), `session` (name), `user`

    `name` is the file under `/run/secrets` in the sandbox, and the name in the secret store.
    """

    kind: str
    name: str
    identifiers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All that starting an agent takes. `policy_text` is the whole policy file; secrets come from the secret store.

    `readable` and `writable` add host paths to those of the policy file (the working directory, as a rule).
    """

    agent: str
    command: tuple[str, ...]
    policy: str
    policy_version: int
    policy_text: str
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    credentials: tuple[CredentialRef, ...] = ()
    tenant: str = ""
    team: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """One agent. `pid` is the sandbox's first process as the host numbers it; `layers` says how much each protection
    holds.
    """

    agent: str
    instance: str
    state: AgentState
    pid: int
    command: tuple[str, ...]
    policy: str
    policy_version: int
    started_ns: int
    layers: dict[str, Enforcement] = field(default_factory=dict)
    credentials: tuple[CredentialRef, ...] = ()
    hold: Hold | None = None
    exit_status: int | None = None
    tenant: str = ""
    team: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Something that the core tries from inside a sandbox, under the agent's own restrictions, to see whether it works.

    kind       target
    open       a path, opened for reading
    http       "METHOD URL", sent to the agent's gateway
    connect    "HOST:PORT", by CONNECT through the agent's gateway
    syscall    a system call's name, called with null arguments
    spawn      a program's path
    """

    kind: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """`denied` is what was seen; `detail` says how (errno name, HTTP status and rule)."""

    attempt: Attempt
    denied: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBundle:
    """A finished evidence folder: `manifest` lists every file with its SHA-256, `sha256` is the manifest's own."""

    folder: str
    manifest: str
    sha256: str
    files: int
    bytes: int
    truncated: tuple[str, ...] = ()
    elapsed_ms: float = 0.0
