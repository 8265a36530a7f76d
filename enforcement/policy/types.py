"""What a policy file says, once it has been read and found sound."""

from __future__ import annotations

from dataclasses import dataclass, field

from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.escalation import EscalationRule

__all__ = ["EgressRule", "NetworkPolicy", "PolicyFile", "SandboxPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPolicy:
    """The static part, fixed at launch. Sizes in bytes, CPU in cores; None is no limit.

    syscalls       the profile that it starts from and the rules that narrow it
    escalations    what of the escalated calls is decided without asking anybody
    filesystem     `read-only` or `read-write` (of the working directory and `/tmp`; all else is read-only in both)
    network        `restricted` (the gateway alone) or `none`
    readable, writable   host paths shown inside beyond the base system
    """

    name: str
    network: str = "restricted"
    filesystem: str = "read-only"
    syscalls: SyscallPolicy = field(default_factory=SyscallPolicy)
    escalations: tuple[EscalationRule, ...] = ()
    max_memory: int | None = None
    max_cpu: float | None = None
    max_processes: int | None = 256
    gpu_access: str = "none"
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    allowed_apis: tuple[str, ...] = ()
    denied_apis: tuple[str, ...] = ()
    audit_enabled: bool = True
    audit_destination: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRule:
    """One line of an egress list. Empty `ports`, `methods` or `paths` match any; `domain` may start with `*.`.

    Only a deny rule's domain may be `*`; with no other restriction it is the default deny, which allow rules precede.
    """

    name: str
    domain: str
    ports: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    model: str = ""  # "local" or "cloud" where the destination is a model


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """The hot-reloadable part. Deny wins over allow; what matches nothing is denied."""

    name: str
    allow: tuple[EgressRule, ...] = ()
    deny: tuple[EgressRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A whole file. `sha256` is of its bytes; `unenforced` names the keys that are accepted and not acted on."""

    sandbox: SandboxPolicy
    network: NetworkPolicy = field(default_factory=lambda: NetworkPolicy(name=""))
    sha256: str = ""
    unenforced: tuple[str, ...] = ()
