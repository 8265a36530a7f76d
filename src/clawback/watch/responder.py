"""Keep the responder warm: a child process that runs playbooks, is told incident ids, and is started again if it dies.

Nothing is lost with it: what it was told and did not finish is in the journal, where its next life finds it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import structlog

from clawback.config import Settings
from clawback.errors import ClawbackError
from clawback.services.process import Service

__all__ = ["ResponderChild"]

_WAITING_LIMIT = 4096
_LINE_LIMIT = 65_536
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds between starts of a child that keeps dying
_STEADY_SECONDS = 30.0  # alive for that long, it is no longer one that keeps dying

_log = structlog.get_logger()


class ResponderChild:
    """`python -m clawback.orchestrate`, its ids and its answers as JSON lines over pipes. Thread-safe.

    command   another program that speaks the same, for tests
    """

    def __init__(
        self, settings: Settings, *, config_file: Path | None = None, command: Sequence[str | Path] = ()
    ) -> None:
        arguments: list[str | Path] = [sys.executable, "-m", "clawback.orchestrate", "--state", settings.state]
        if config_file is not None:
            arguments += ["--config", config_file.resolve()]
        environment = {name: value for name, value in os.environ.items() if name.startswith("CLAWBACK_")}
        environment["HOME"] = os.environ.get("HOME", "/")
        self.restarts = 0
        self.ended = 0
        self._service = Service(
            "responder",
            list(command) or arguments,
            log=settings.state / "log" / "responder.log",
            environment=environment,
            piped=True,
        )
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque(maxlen=_WAITING_LIMIT)
        self._partial = b""
        self._pause = _FIRST_PAUSE
        self._started_at = 0.0
        self._start_due = 0.0
        self._stopped = False

    def submit(self, incident: str) -> None:
        """Tell it. Returns at once: what the pipe does not take now goes with the next `tend`."""
        with self._lock:
            if incident not in self._waiting:
                self._waiting.append(incident)
            self._flush()

    def tend(self) -> None:
        """Start it if it does not run, and send what waits."""
        with self._lock:
            if not self._stopped and not self._service.running:
                self._start()
            self._flush()

    def stop(self) -> None:
        """End it; a playbook that it is amid is gone on with at its next start."""
        with self._lock:
            self._stopped = True
            self._service.stop()

    def _start(self) -> None:
        now = time.monotonic()
        if now < self._start_due:
            return
        if self._started_at:
            self.restarts += 1
            _log.error("the responder ended; starting it again", times=self.restarts)
            self._pause = _FIRST_PAUSE if now - self._started_at > _STEADY_SECONDS else self._pause
        self._started_at, self._partial = now, b""
        self._start_due = now + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        self._service.stop()  # reaps what is left of the former one
        try:
            self._service.start()
        except ClawbackError as error:
            _log.error("the responder does not start", error=error.message, hint=error.hint)
            return
        assert self._service.stdin is not None  # noqa: S101 - for the type checker: it was asked for pipes
        assert self._service.stdout is not None  # noqa: S101
        os.set_blocking(self._service.stdin.fileno(), False)
        threading.Thread(
            target=self._listen, args=(self._service.stdout,), name="responder-output", daemon=True
        ).start()

    def _flush(self) -> None:
        stdin = self._service.stdin
        if stdin is None or not self._service.running:
            return
        try:
            while self._partial or self._waiting:
                if not self._partial:
                    self._partial = json.dumps({"incident": self._waiting.popleft()}).encode() + b"\n"
                self._partial = self._partial[os.write(stdin.fileno(), self._partial) :]
        except BlockingIOError:
            pass  # it is busy; the rest waits
        except OSError as error:
            _log.warning("the responder takes nothing", error=error.strerror)

    def _listen(self, output: IO[bytes]) -> None:
        try:
            while line := output.readline(_LINE_LIMIT):
                self._heard(line)
        except (OSError, ValueError):
            return  # closed while reading: the child was stopped

    def _heard(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            _log.warning("the responder said what is no message", bytes=len(line))
        elif message.get("ready"):
            _log.info("responder ready", prefect=bool(message.get("prefect")))
        elif "error" in message and "incident" not in message:
            _log.warning("the responder refused a line", error=str(message["error"])[:200])
        else:
            self.ended += 1
            _log.info("playbook ended", incident=str(message.get("incident", ""))[:64])
