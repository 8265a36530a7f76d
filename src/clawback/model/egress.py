"""Orders over the agents' way out: what an incident denies, whatever the policy says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "EgressOrder",
    "InferenceEndpoint",
    "InferenceKind",
    "InferenceMode",
    "OrderKind",
    "Scope",
    "ScopeKind",
    "Subject",
]


class ScopeKind(StrEnum):
    """What an order over the way out goes by."""

    AGENT = "agent"
    TENANT = "tenant"
    TEAM = "team"
    TAG = "tag"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which agents: one by its id, those of a tenant or team, those with a tag as written at the launch, or all."""

    kind: ScopeKind
    value: str = ""

    def __str__(self) -> str:
        return "all agents" if self.kind is ScopeKind.ALL else f"{self.kind} {self.value}"

    def covers(self, subject: Subject) -> bool:
        """Whether an agent is meant. What is not known of it counts as a match: an order is not escaped by that."""
        match self.kind:
            case ScopeKind.ALL:
                return True
            case ScopeKind.AGENT:
                return subject.agent == self.value
            case ScopeKind.TENANT:
                return subject.tenant is None or subject.tenant == self.value
            case ScopeKind.TEAM:
                return subject.team is None or subject.team == self.value
            case ScopeKind.TAG:
                return subject.tags is None or self.value in subject.tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An agent as scopes see it: its id, and what its launch said of it. None: whoever attached it did not say."""

    agent: str
    tenant: str | None = None
    team: str | None = None
    tags: tuple[str, ...] | None = None


class OrderKind(StrEnum):
    """What an order denies. `damaged` is no kind to give: an order whose record cannot be read denies everything."""

    DESTINATION = "destination"
    TOOL = "tool"
    CONNECTOR = "connector"
    INFERENCE = "inference"
    DAMAGED = "damaged"


class InferenceMode(StrEnum):
    """cut: no inference endpoint is reached. local-only: none in the cloud. queue-sensitive: a request to the cloud
    that is found sensitive is held, and refused when its time is over.
    """

    CUT = "cut"
    LOCAL_ONLY = "local-only"
    QUEUE_SENSITIVE = "queue-sensitive"


class InferenceKind(StrEnum):
    """Where a model runs."""

    LOCAL = "local"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceEndpoint:
    """Where a model is reached. `host` as in a policy, `*.` before it for all below; port 0 is any; `path` is a prefix
    of whole segments, empty for all.
    """

    host: str
    kind: InferenceKind
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressOrder:
    """One order. It stands until it is lifted, over restarts of everything.

    id         chosen by whoever gives it; giving it again is giving it once
    kind       which of the fields below say what is denied
    host       destination: a name, `*.NAME`, an address, a network (CIDR) or `*`. connector: a name or an address.
               tool: likewise, or empty for an MCP tool wherever it is called
    port       0 for any
    tool       MCP tool or JSON-RPC method: `*` is any run of characters, `?` is one
    method     of an HTTP API that counts as a tool: upper case, or `*`
    path       of such an API, a pattern in which `*` stops at a slash and `**` does not; of a connector, a prefix
    mode       inference
    uid        the user that the kernel saw giving it; `by` is what that user called itself
    """

    id: str
    kind: OrderKind
    scope: Scope
    reason: str
    by: str
    incident: str = ""
    host: str = ""
    port: int = 0
    tool: str = ""
    method: str = ""
    path: str = ""
    mode: str = ""
    placed_ns: int = 0
    uid: int = -1

    @property
    def rule(self) -> str:
        """As decisions name it."""
        return f"order:{self.id}"

    @property
    def what(self) -> str:
        """What is denied, in words."""
        place = f"[{self.host}]" if ":" in self.host and self.port else self.host
        place += f":{self.port}" * bool(self.port)
        match self.kind:
            case OrderKind.TOOL if self.tool:
                return f"tool {self.tool}" + (f" on {place}" if place else "")
            case OrderKind.TOOL:
                return f"tool {self.method} {self.path} on {place}"
            case OrderKind.INFERENCE:
                return f"inference {self.mode}"
            case OrderKind.DAMAGED:
                return "everything: the order's record is damaged"
            case _:
                return f"{self.kind} {place}{self.path}"

    @property
    def same(self) -> tuple[object, ...]:
        """What makes two orders of one id the same order: not the words around it, nor when it came."""
        return (self.kind, self.scope, self.host, self.port, self.tool, self.method, self.path, self.mode)
