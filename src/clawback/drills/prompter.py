"""Writes a drill's scripted events into the telemetry when they are due, and resumes where the script says so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from clawback.drills.script import Line, build
from clawback.model import AgentInfo
from clawback.model.ocsf import encode

__all__ = ["Prompter"]


class Prompter:
    """`start` writes what lies in the past and goes on with the rest in a thread of its own.

    whom       the agent that a line is about, by `about`; None where it is about none
    incident   the incident's id, once there is one
    """

    def __init__(
        self,
        script: tuple[Line, ...],
        telemetry: Path,
        config_file: Path,
        *,
        whom: Callable[[str], AgentInfo | None],
        policy: str,
        incident: Callable[[], str],
    ) -> None:
        self._script = script
        self._telemetry = telemetry
        self._config = config_file
        self._whom = whom
        self._policy = policy
        self._incident = incident
        self._sequence = 0
        self._zero = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._rest, daemon=True)

    def start(self) -> None:
        """The drill's trigger is now."""
        self._zero = time.time_ns()
        for line in self._script:
            if line.at <= 0:
                self._say(line)
        self._thread.start()

    def stop(self) -> None:
        """Nothing more is written."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _rest(self) -> None:
        for line in self._script:
            if line.at <= 0:
                continue
            if self._over.wait(max(0.0, self._zero / 1e9 + line.at - time.time())):
                return
            self._say(line)

    def _say(self, line: Line) -> None:
        if line.then == "resume":
            subprocess.run(
                [sys.executable, "-m", "clawback", "--config", str(self._config), "resume", self._incident()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,  # that the incident is still open is said by the drill's end
            )
            return
        info = self._whom(line.about)
        self._sequence += 1
        event = build(
            line,
            self._zero + round(line.at * 1e9),
            self._sequence,
            agent=info.agent if info else "",
            instance=info.instance if info else "",
            policy=self._policy,
            version=info.policy_version if info else 1,
        )
        path = self._telemetry / f"{event.source}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(descriptor, encode(event))
        finally:
            os.close(descriptor)
