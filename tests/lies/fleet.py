"""Scenes with real agents and the record of what they did: several that work together, and one that is suspected."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lies.liar import Answer
from lies.record import Recording
from lies.scenes import Host, until

from clawback.enforcement.core import wire
from clawback.model import AgentInfo, LaunchSpec, Level, Source
from clawback.world import World

__all__ = ["Fleet", "Steered", "lists_only"]


class Fleet(Recording, Host):
    """An agent and one that works for it, and what the core and the gateway write about them."""

    def __init__(self, folder: Path, state: Path) -> None:
        super().__init__(folder, state)
        self.telemetry.mkdir()
        for source in (Source.SANDBOX, Source.POLICY):
            until((state / "telemetry" / f"{source.value}.jsonl").exists, what=f"the first event of {source.value}")
            # The same file by a name that can be taken away: others read the first one.
            os.link(state / "telemetry" / f"{source.value}.jsonl", self.stream(source))
        self.worker = f"{self.agent}-w"
        home = folder / "worker"
        (home / "work").mkdir(parents=True)
        (home / "work").chmod(0o777)
        (home / "agent.py").write_text(self.AGENT)
        self.worker_beats = home / "work" / "beat"
        self.true_core.launch(
            LaunchSpec(
                agent=self.worker,
                command=("/usr/bin/python3", "agent.py"),
                policy=self.agent,
                policy_version=1,
                policy_text=self.POLICY,
                workdir=str(home),
                readable=(str(home),),
                writable=(str(home / "work"),),
                parent=self.agent,
            )
        )
        until(self.worker_beats.exists, what="the worker's first beat")

    def world(self) -> World:
        return self.read(super().world())

    def all_still(self) -> bool:
        return self.stands_still() and self._still(self.worker_beats)

    def all_run(self) -> bool:
        return not self.stands_still(2.0) and not self._still(self.worker_beats, 2.0)

    def _still(self, beats: Path, seconds: float = 0.06) -> bool:
        self.beats, kept = beats, self.beats
        try:
            return self.stands_still(seconds)
        finally:
            self.beats = kept

    def kernel(self, word: str) -> None:
        """Freeze (1) or thaw (0) the worker by the kernel's own file."""
        instance = self.true_core.agent(self.worker).instance
        record = json.loads((self.state / "agents" / self.worker / instance / "agent.json").read_text())
        Path(record["cgroup"], "cgroup.freeze").write_text(word)

    def halts(self) -> list[str]:
        return [x.id for x in self.true_core.halts() if x.order.incident == self.incident_id]

    def lift_all(self) -> None:
        for halt in self.halts():
            self.true_core.lift(halt, reason="behind its back", by="another")

    def end(self) -> None:
        self.lift_all()
        for agent in (self.worker, self.agent):
            self.true_core.contain(agent, Level.STOP, reason="the test is over", by="test")


class Steered(Recording, Host):
    """An agent whose violations are being looked into: the only finding is that there are many."""

    def open(self, **changes: Any) -> None:
        self.telemetry.mkdir(exist_ok=True)
        super().open(**{"detector": "sandbox.violation-spike", "technique": "violation-spike", **changes})

    def world(self) -> World:
        return self.read(super().world())


def lists_only(scene: Any, *agents: str) -> None:
    """From now on the core leaves the others out."""
    told: tuple[AgentInfo, ...] = tuple(x for x in scene.true_core.agents() if x.agent in agents)
    answer = wire.AGENTS.dump_json(told)

    def about(request: Any) -> bool:
        return bool(request.method == "GET" and request.path == "/agents")

    scene.liars["core"].lie(about, Answer(answer))
