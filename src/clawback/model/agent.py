"""Agents as the core knows them: what runs, how tightly, what it holds, and what holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from clawback.model.hold import Hold
from clawback.model.level import Enforcement, LevelResult

__all__ = [
    "CREDENTIAL_KINDS",
    "AgentInfo",
    "AgentState",
    "Attempt",
    "AttemptResult",
    "CredentialRef",
    "EvidenceBundle",
    "LaunchSpec",
    "Quarantine",
]


# Kinds of credential that some action knows how to replace, and `opaque`.
CREDENTIAL_KINDS = (
    "opaque",
    "vault-token",
    "vault-lease",
    "vault-kv",
    "vault-approle",
    "vault-static-role",
    "vault-transit",
    "vault-wrapped",
    "aws-access-key",
    "aws-session",
    "oidc-token",
    "oidc-client",
    "oidc-registration",
)


class AgentState(StrEnum):
    """Whether the agent's tree exists. Whether it is frozen, isolated … is its hold's matter."""

    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"  # it should run, and neither its shim nor its processes are there


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRef:
    """A credential that an agent holds, by what identifies it, never by its value.

    kind           what `identifiers` carries
    vault-token    `accessor`; `policies` (comma-separated), `ttl`
    vault-lease    `prefix` (lease prefix, such as `database/creds/support`), `path` to issue anew from
    vault-kv       `mount`, `path`; `version` that the agent was given, `field` of the secret, where it is not all of it
    vault-approle  `role`, the secret-id's `accessor`; `mount` (`approle`). The value is the secret-id
    vault-static-role  `role`; `mount` (`database`); `host`, `port`, `database`, `sslmode`, `sslrootcert` of PostgreSQL
    vault-transit  `key`; `mount` (`transit`). A right, not a value: what is stored is only what the agent is to be told
    vault-wrapped  `accessor` of the wrapping token, `of`: the name of the agent's credential that it delivers
    aws-access-key `user`, `access_key_id`
    aws-session    `role` (ARN), `session` (name), `user`
    oidc-token     `issuer`, `client_id`; `sub`, `scope`, and `resource`, a URL that its access token may read.
                   The value: a token response's JSON (`access_token`, `refresh_token`), or an access token
    oidc-client    `issuer`, `client_id`. The value: JSON with `client_id`, `client_secret`
    oidc-registration   Clawback's own right to manage such a client, held under the name `clawback`: `issuer`,
                   `client_id`, `uri` (its client configuration endpoint). The value: its registration access token
    opaque         whatever helps a person to find it: no action replaces it

    `name` is the file under `/run/secrets` in the sandbox, and the name in the secret store.

    delivery   how an agent is given it: `file`, or `placeholder`: the file, and the environment's `variable` where one
               is named, hold `clawback:resolve:NAME`, and the gateway puts the value in its place in request headers
    hosts      where a placeholder's value may go: `HOST[:PORT]` by verified TLS, `http://HOST[:PORT]` in the clear;
               `*.` before a host means any below it
    """

    kind: str
    name: str
    identifiers: dict[str, str] = field(default_factory=dict)
    delivery: Literal["file", "placeholder"] = "file"
    variable: str = ""
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All that starting an agent takes. `policy_text` is the whole policy file; secrets come from the secret store.

    `readable` and `writable` add host paths to those of the policy file (the working directory, as a rule). `parent` is
    the agent that this one works for, by its id; empty for one that people started. By `request_id`, made anew for each
    launch, whoever got no answer knows the agent that was started for it.
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
    parent: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """One agent. `pid` is the sandbox's first process as the host numbers it; `layers` says how much each protection
    holds; `request_id` is that of its launch.
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
    parent: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Several levels made true by one order: what applying each came to, and each read back when all had been.

    `agent` is read last, so its hold is the one under which `seen` was seen.
    """

    agent: AgentInfo
    applied: tuple[LevelResult, ...]
    seen: tuple[LevelResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Something that the core tries from inside a sandbox, under the agent's own restrictions, to see whether it works.

    kind       target
    open       a path, opened for reading
    http       "METHOD URL", sent to the agent's gateway; what follows another blank is its body, sent as JSON
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
