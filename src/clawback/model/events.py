"""What the telemetry says: one frozen type for each kind of event.

Events are written by Clawback's own processes (the core, the gateway, the router) and describe what a hostile
party did. `agent`, `instance`, `source` and `time_ns` come from the writer; every other string may have been
chosen by the agent and is data, bounded when it is read (see `clawback.model.ocsf`), never an instruction.

The class and activity numbers are OCSF's (schema 1.7).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import ClassVar

from clawback.model.policy import staged_from

__all__ = [
    "CREDENTIAL_MISUSED",
    "SLOW_DECISION_MS",
    "CredentialUse",
    "Disposition",
    "Event",
    "ExternalAlert",
    "FileActivity",
    "HttpActivity",
    "KernelActivity",
    "Lifecycle",
    "NetworkActivity",
    "PolicyChange",
    "ProcessActivity",
    "RouteActivity",
    "Sensitivity",
    "Severity",
    "Source",
]


SLOW_DECISION_MS = 200.0
"""A policy decision that takes longer is counted as slow; the source documents alert when one in a hundred does."""

CREDENTIAL_MISUSED = "credential misused: "
"""How the gateway's reason begins where a placeholder was sent to where its credential must not go."""


class Source(StrEnum):
    """Which of the telemetry streams an event belongs to; one JSONL file each. `external` holds what was ingested."""

    SANDBOX = "sandbox"
    POLICY = "policy"
    ROUTING = "routing"
    EXTERNAL = "external"


class Severity(IntEnum):
    """OCSF severity_id."""

    UNKNOWN = 0
    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5
    FATAL = 6


class Disposition(IntEnum):
    """OCSF disposition_id, as far as Clawback uses it."""

    UNKNOWN = 0
    ALLOWED = 1
    BLOCKED = 2
    LOGGED = 17


class Sensitivity(StrEnum):
    """The privacy router's classes, in rising order."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events share.

    `writer` is a random name of the process that wrote it, `sequence` counts from 1 within that writer: together
    they identify the event, and a gap is a loss. `agent` is the stable id, `instance` one launch of it; both are
    empty for events about no agent (a policy change, a component's heartbeat).
    """

    class_uid: ClassVar[int] = 0

    time_ns: int
    writer: str
    sequence: int
    source: Source
    agent: str = ""
    instance: str = ""
    activity_id: int = 0
    severity: Severity = Severity.INFORMATIONAL
    disposition: Disposition = Disposition.UNKNOWN
    policy: str = ""
    policy_version: int = 0
    message: str = ""

    @property
    def uid(self) -> str:
        """Identifies the event among all."""
        return f"{self.source}/{self.writer}/{self.sequence}"

    @property
    def withheld(self) -> bool:
        """A call that the gateway refused to an agent whose release is staged. Its own policy may well allow it: who
        watches the stage asks that of each, and no detector takes it for the agent's doing.
        """
        return False

    @property
    def blocked(self) -> bool:
        """The attempt was refused."""
        return self.disposition is Disposition.BLOCKED

    @property
    def subject(self) -> tuple[str, str]:
        """Whom a finding about it is about: agent and instance, or, of some events about no agent, a part of Clawback's
        twice (`component:…`, `policy:…`: no agent's id has a colon). Empty where a finding would be about nothing.
        """
        return self.agent, self.instance


@dataclass(frozen=True, slots=True, kw_only=True)
class FileActivity(Event):
    """A file was opened, or an attempt to was refused. Activity 14 is Open."""

    class_uid: ClassVar[int] = 1001
    OPEN: ClassVar[int] = 14

    path: str
    access: str = "read"
    pid: int = 0
    exe: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelActivity(Event):
    """A system call that the sandbox's filter saw, denied unless the disposition says otherwise. Activity 4: Invoke.

    `arguments` are the argument registers, as many as were seen (none or six), unsigned 64 bits each: numbers that the
    caller put there, pointers among them. `address` is the caller's instruction, `comm` the name of its thread.
    `novel`: the agent was not denied this call in its first 72 hours under this policy version, which are over.
    """

    class_uid: ClassVar[int] = 1003
    INVOKE: ClassVar[int] = 4

    syscall: str
    number: int = -1
    pid: int = 0
    exe: str = ""
    architecture: str = ""
    arguments: tuple[int, ...] = ()
    address: int = 0
    comm: str = ""
    novel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessActivity(Event):
    """A process of the agent's tree started or ended. Activities: 1 Launch, 2 Terminate."""

    class_uid: ClassVar[int] = 1007
    LAUNCH: ClassVar[int] = 1
    TERMINATE: ClassVar[int] = 2

    pid: int
    parent_pid: int = 0
    exe: str = ""
    command: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkActivity(Event):
    """A connection, or an attempt. Activities: 1 Open, 2 Close, 5 Refuse, 6 Traffic.

    `bytes_out` and `bytes_in` are totals of the connection `connection` so far, as the gateway counted them.
    """

    class_uid: ClassVar[int] = 4001
    OPEN: ClassVar[int] = 1
    CLOSE: ClassVar[int] = 2
    REFUSE: ClassVar[int] = 5
    TRAFFIC: ClassVar[int] = 6

    host: str
    port: int
    connection: str = ""
    bytes_out: int = 0
    bytes_in: int = 0
    rule: str = ""
    reason: str = ""

    @property
    def withheld(self) -> bool:
        """See `Event`."""
        return self.blocked and self.activity_id == self.REFUSE and staged_from(self.policy) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpActivity(Event):
    """One HTTP request through the gateway. OCSF's activities: 1 Connect … 3 Get, 6 Post, 7 Put, 8 Trace.

    `calls` are what its content calls, where a rule made the gateway look at that: `tools/call read_file`, at most 16.
    """

    class_uid: ClassVar[int] = 4002

    method: str
    host: str
    port: int
    path: str
    status: int = 0
    connection: str = ""
    bytes_out: int = 0
    bytes_in: int = 0
    rule: str = ""
    reason: str = ""
    calls: tuple[str, ...] = ()

    @property
    def withheld(self) -> bool:
        """See `Event`."""
        return self.blocked and staged_from(self.policy) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange(Event):
    """A policy version became active, or a reload was refused. OCSF 5019, Device Config State Change; activity 1.

    `widened` says, line by line, what the version allows and the newest known-good one does not; at most 32 lines.
    """

    class_uid: ClassVar[int] = 5019
    LOG: ClassVar[int] = 1

    previous_version: int = 0
    sha256: str = ""
    author: str = ""
    reason: str = ""
    widened: tuple[str, ...] = ()

    @property
    def subject(self) -> tuple[str, str]:
        """The policy."""
        if self.agent or not self.policy:
            return self.agent, self.instance
        return f"policy:{self.policy}", f"policy:{self.policy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle(Event):
    """A component or sandbox started, stopped, failed or is alive. Activities: 3 Start, 4 Stop, 99 Other (heartbeat).

    `lost` counts telemetry that was dropped since the previous heartbeat; `violations` the agent's denials in the
    hour before it. Of the policy engine, since its heartbeat before: `decisions` made, `slow` ones among them (see
    `SLOW_DECISION_MS`), and the 99th percentile in milliseconds.
    """

    class_uid: ClassVar[int] = 6002
    START: ClassVar[int] = 3
    STOP: ClassVar[int] = 4
    OTHER: ClassVar[int] = 99

    component: str
    status: str
    lost: int = 0
    violations: int = 0
    decisions: int = 0
    slow: int = 0
    p99_ms: float = 0.0

    @property
    def subject(self) -> tuple[str, str]:
        """The component, where it is no agent's."""
        if self.agent:
            return self.agent, self.instance
        return f"component:{self.component}", f"component:{self.component}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteActivity(Event):
    """The privacy router chose a model for a query. OCSF 6003, API Activity; activity 1 Create."""

    class_uid: ClassVar[int] = 6003
    CREATE: ClassVar[int] = 1

    model: str
    endpoint: str
    destination: str  # "local" or "cloud"
    sensitivity: Sensitivity
    confidence: float = 1.0
    data_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalAlert(Event):
    """Another product's alert that concerns an agent: of its host, or of a person who works with it. OCSF 2004,
    Detection Finding; activity 1 Create. Everything but `agent` and `instance` is as that product said it.

    `alert` is that product's id of it; `attack` are the MITRE ATT&CK techniques that it names.
    """

    class_uid: ClassVar[int] = 2004
    CREATE: ClassVar[int] = 1

    product: str
    title: str
    alert: str = ""
    host: str = ""
    user: str = ""
    attack: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialUse(Event):
    """An issuer's record that a credential of an agent's was used. OCSF 3002, Authentication; activity 1 Logon.

    `credential` is its name in the secret store; `origin` the address that the use came from. `elsewhere`: from no
    address that the agent's traffic leaves by; `canary`: nobody was ever meant to use it.
    """

    class_uid: ClassVar[int] = 3002
    LOGON: ClassVar[int] = 1

    credential: str
    issuer: str
    origin: str = ""
    operation: str = ""
    elsewhere: bool = False
    canary: bool = False
