"""What a sandbox is to be: everything that the shim and the init need to know, fixed by the core before they begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.escalation import EscalationRule

__all__ = ["INSIDE_ID", "REHEARSAL", "Job", "Restrictions"]

INSIDE_ID = 1000
"""User and group id that an agent sees itself as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restrictions:
    """What the agent's threads are under, kept in `restrictions.json` so that an attempt can be put under the same.

    read, write    paths as seen inside, beyond what every sandbox shows
    ports          TCP ports it may connect to
    syscalls       what its seccomp filters are made from
    escalations    what of the escalated calls is decided without asking anybody
    deny           system calls denied later, on top of the profile
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    syscalls: SyscallPolicy = field(default_factory=SyscallPolicy)
    escalations: tuple[EscalationRule, ...] = ()
    deny: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Restrictions:
        """From its fields as JSON has them; `KeyError`, `TypeError` or `ValueError` if they are not its."""
        return cls(
            read=tuple(given["read"]),
            write=tuple(given["write"]),
            ports=tuple(given["ports"]),
            syscalls=SyscallPolicy.from_json(given["syscalls"]),
            escalations=tuple(EscalationRule.from_json(rule) for rule in given["escalations"]),
            deny=tuple(given["deny"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One launch. `binds` are (host path, writable); a path inside is the same as outside. `sources` says of those that
    lead through links where they led when they were looked at. `required` are layers that must hold at least in part,
    or nothing is started.

    Secrets are not in it: they travel beside it and are never written down.
    """

    agent: str
    instance: str
    folder: str
    uid: int
    policy: str
    policy_version: int
    command: tuple[str, ...]
    environment: dict[str, str]
    workdir: str
    binds: tuple[tuple[str, bool], ...]
    tmp_writable: bool
    canaries: tuple[str, ...]
    restrictions: Restrictions
    sources: dict[str, str] = field(default_factory=dict)
    network: bool = True
    required: tuple[str, ...] = ()
    max_memory: int | None = None
    max_cpu: float | None = None
    max_processes: int | None = None
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)


REHEARSAL = Job(
    agent="", instance="", folder="", uid=-1, policy="", policy_version=0, command=(), environment={}, workdir="/",
    binds=(), tmp_writable=False, canaries=(), restrictions=Restrictions(), limits={"CORE": (0, 0)},
)  # fmt: skip
"""A job without a command, which goes through a launch's motions to no effect."""
