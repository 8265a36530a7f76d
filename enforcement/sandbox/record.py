"""One running sandbox, as written to `agent.json` in its folder: all that it takes to find and act on it again."""

from __future__ import annotations

from dataclasses import dataclass, field

from clawback.model import Enforcement

__all__ = ["GATEWAY_PORT", "Sandbox"]

GATEWAY_PORT = 3128
"""Where the gateway listens inside every sandbox, on 127.0.0.1 and ::1; 3128 is the port OpenShell uses too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A launched sandbox.

    pid            the sandbox's first process (pid 1 inside), as the host numbers it
    start_ticks    field 22 of /proc/PID/stat: a pid without it may have been reused
    shim_pid       the shim that outlives the core, reaps the tree and writes `exit.json`
    uid            outer user id of everything inside; one agent, one uid
    cgroup         absolute path of the leaf in the v2 hierarchy; empty where there is none (rootless)
    controllers    v1 controller → absolute path of the leaf there, on hybrid hosts
    folder         `STATE/agents/AGENT/INSTANCE`: this record, `exit.json`, `output.log`, `shim.sock`
    secrets        file names under /run/secrets inside
    layers         each protection and how much of it was observed to hold at launch
    """

    agent: str
    instance: str
    pid: int
    start_ticks: int
    shim_pid: int
    shim_start_ticks: int
    uid: int
    cgroup: str
    folder: str
    policy: str
    policy_version: int
    command: tuple[str, ...]
    started_ns: int
    controllers: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    canaries: tuple[str, ...] = ()
    layers: dict[str, Enforcement] = field(default_factory=dict)
