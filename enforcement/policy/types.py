"""What a policy file says, once it has been read and found sound."""

from __future__ import annotations

from dataclasses import dataclass, field

from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.endpoints import EndpointRule
from clawback.enforcement.policy.escalation import EscalationRule

__all__ = ["Effect", "EgressRule", "NetworkPolicy", "PolicyFile", "SandboxPolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPolicy:
    """The static part, fixed at launch. Sizes in bytes, CPU in cores; None is no limit.

    syscalls       the profile that it starts from and the rules that narrow it
    escalations    what of the escalated calls is decided without asking anybody
    filesystem     `read-only` or `read-write` (of the working directory and `/tmp`; all else is read-only in both)
    network        `restricted` (the gateway alone) or `none`
    readable, writable   host paths shown inside beyond the base system
    skip_missing   a path that is not there is passed over, not an error
    workdir_writable   the working directory is writable whatever `filesystem` says
    required       layers (as a sandbox's record names them) without which a launch is refused
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
    skip_missing: bool = False
    workdir_writable: bool = False
    required: tuple[str, ...] = ()
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
    """The hot-reloadable part. Deny wins over allow; what matches nothing is denied.

    `allow` and `deny` come from a `networkPolicy` document, `rules` from an OpenShell one; a file has one or the other.
    """

    name: str
    allow: tuple[EgressRule, ...] = ()
    deny: tuple[EgressRule, ...] = ()
    rules: tuple[EndpointRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Effect:
    """What comes of one key of a policy file.

    by    `kernel`, `launch`, `gateway`, `core` or `supervisor`, or empty: nothing enforces it
    how   the mechanism, or why there is none
    """

    key: str
    by: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A whole file. `form` says whose; `sha256` is of its bytes; `effects` has what comes of each key in it."""

    sandbox: SandboxPolicy
    network: NetworkPolicy = field(default_factory=lambda: NetworkPolicy(name=""))
    sha256: str = ""
    form: str = "SandboxPolicy"
    effects: tuple[Effect, ...] = ()

    @property
    def unenforced(self) -> tuple[str, ...]:
        """The keys that are accepted and not acted on."""
        return tuple(effect.key for effect in self.effects if not effect.by)
