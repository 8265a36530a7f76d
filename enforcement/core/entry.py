"""One agent as the running core knows it: its latest instance, whether it runs, and how to hear of its end."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.telemetry.roster import Tracked
from clawback.model import AgentInfo, AgentState, Enforcement, Hold, LaunchSpec, Level

__all__ = ["Entry", "Integrity", "tracked"]

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


@dataclass(frozen=True, slots=True)
class Integrity:
    """What must not change while a sandbox lives: its namespaces, its cgroup, its filter and no_new_privs."""

    namespaces: tuple[str, ...]
    cgroup: str
    seccomp: str
    no_new_privs: str

    @classmethod
    def read(cls, pid: int) -> Integrity:
        """As the kernel shows the process now. `OSError` where it is gone."""
        root = Path(f"/proc/{pid}")
        status = dict(line.split(":\t", 1) for line in (root / "status").read_text().splitlines() if ":\t" in line)
        groups = (root / "cgroup").read_text().splitlines()
        return cls(
            namespaces=tuple(str((root / "ns" / name).readlink()) for name in _NAMESPACES),
            cgroup=next((line[3:] for line in groups if line.startswith("0::")), ""),
            seccomp=status.get("Seccomp", "0"),
            no_new_privs=status.get("NoNewPrivs", "0"),
        )

    def changes(self, now: Integrity) -> tuple[str, ...]:
        """What differs."""
        found = [
            name for name, was, is_ in zip(_NAMESPACES, self.namespaces, now.namespaces, strict=True) if was != is_
        ]
        found += [name for name in ("cgroup", "seccomp", "no_new_privs") if getattr(self, name) != getattr(now, name)]
        return tuple(found)


@dataclass(slots=True, kw_only=True)
class Entry:
    """Changed by the core alone.

    `orders` counts: freezing and isolating wait for nothing, so a release in progress can tell by it that a new order
    came. `settled` is set when its start is over: until then a frozen agent would never come to its first instruction,
    and its start would not end.
    """

    box: Sandbox
    spec: LaunchSpec | None
    state: AgentState = AgentState.RUNNING
    exit_status: int | None = None
    integrity: Integrity | None = None
    enforced: dict[Level, Enforcement] = field(default_factory=dict)
    orders: int = 0
    settled: threading.Event = field(default_factory=threading.Event)
    ended: Future[int] = field(default_factory=Future)

    @property
    def running(self) -> bool:
        """Its tree should be there."""
        return self.state is AgentState.RUNNING

    @property
    def tracked(self) -> Tracked:
        """As telemetry names it."""
        return tracked(self.box)

    def info(self, hold: Hold | None) -> AgentInfo:
        """As callers see it."""
        spec = self.spec
        return AgentInfo(
            agent=self.box.agent,
            instance=self.box.instance,
            state=self.state,
            pid=self.box.pid,
            command=self.box.command,
            policy=self.box.policy,
            policy_version=self.box.policy_version,
            started_ns=self.box.started_ns,
            layers=dict(self.box.layers),
            credentials=spec.credentials if spec else (),
            hold=hold,
            exit_status=self.exit_status,
            tenant=spec.tenant if spec else "",
            team=spec.team if spec else "",
            tags=spec.tags if spec else (),
            parent=spec.parent if spec else "",
            request_id=spec.request_id if spec else "",
        )


def tracked(box: Sandbox) -> Tracked:
    """A sandbox as telemetry names it."""
    return Tracked(
        agent=box.agent,
        instance=box.instance,
        uid=box.uid,
        pid=box.pid,
        policy=box.policy,
        policy_version=box.policy_version,
        since_ns=box.started_ns,
    )
