"""The warm responder as `watch` holds it: a child process that is handed incident ids and runs their playbooks.

The child has Prefect imported and its clients open before anything happens (see `clawback.orchestrate.process`). It is
started again when it dies, and then goes on with every open incident by itself: what is lost here is in the journal.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import structlog

from clawback.config import Settings
from clawback.errors import ClawbackError
from clawback.services.process import Service

__all__ = ["Responder"]

_log = structlog.get_logger()
_PASSED = ("CLAWBACK_", "AWS_", "VAULT_", "BAO_")
_WAITING = 10_000
_LONGEST_PAUSE = 1.0  # a response waits meanwhile
_GRACE = 5.0


class Responder:
    """Thread-safe. The child is started at once, in the background; nothing here waits for it.

    ended  called, on a thread of its own, with what the child says of each incident whose run ended
    """

    def __init__(
        self,
        settings: Settings,
        *,
        config_file: Path | None = None,
        ended: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._ended = ended
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque(maxlen=_WAITING)
        self._stopped = False
        self._pause = 0.1
        self._due = 0.0
        options = ["--state", str(settings.state)]
        if config_file is not None:
            options += ["--config", str(config_file)]
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
        environment["HOME"] = os.environ.get("HOME", "/")
        if settings.prefect.api_url and "PREFECT_API_AUTH_STRING" in os.environ:
            environment["PREFECT_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"]
        self._service = Service(
            "responder",
            [sys.executable, "-m", "clawback.orchestrate", *options],
            log=settings.state / "log" / "responder.log",
            environment=environment,
            piped=True,
        )
        self.tend()

    @property
    def pid(self) -> int:
        """The child's; 0 while there is none."""
        return self._service.pid if self._service.running else 0

    def submit(self, incident: str) -> None:
        """Run, or go on with, this incident's playbook. Does not block."""
        with self._lock:
            self._waiting.append(incident)
            self._write()

    def tend(self) -> None:
        """Start the child again if it died, and hand over what could not be."""
        with self._lock:
            if self._stopped:
                return
            if not self._service.running and time.monotonic() >= self._due:
                self._start()
            self._write()

    def stop(self) -> None:
        """End it. It has a few seconds to finish what it has in work; the rest is gone on with at the next start."""
        with self._lock:
            self._stopped = True
            if self._service.stdin is not None:
                try:
                    self._service.stdin.close()  # the end of its input; TERM follows only if it does not end by that
                except BrokenPipeError:
                    pass
        self._service.wait(_GRACE)
        self._service.stop(grace=1.0)

    def _start(self) -> None:
        self._due, self._pause = time.monotonic() + self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        self._service.stop()
        try:
            self._service.start()
        except (ClawbackError, OSError) as error:
            _log.error("the responder does not start", error=type(error).__name__)
            return
        self.counts["starts"] += 1
        if self._service.stdin is None or self._service.stdout is None:
            raise RuntimeError("the responder was started without pipes")
        os.set_blocking(self._service.stdin.fileno(), False)
        threading.Thread(target=self._read, args=(self._service.stdout,), name="responder", daemon=True).start()

    def _write(self) -> None:
        while self._waiting and self._service.running and self._service.stdin is not None:
            line = json.dumps({"incident": self._waiting[0]}).encode() + b"\n"
            try:
                os.write(self._service.stdin.fileno(), line)  # shorter than PIPE_BUF: whole or not at all
            except BlockingIOError:
                return  # it has more than a thousand to do; the next `tend` goes on
            except (BrokenPipeError, ValueError):
                self._waiting.clear()  # it is gone, and its successor finds them in the journal
                return
            self._waiting.popleft()

    def _read(self, output: IO[bytes]) -> None:
        try:
            for line in output:
                self._heard(line)
        except ValueError:  # closed by `stop`
            pass

    def _heard(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        if said.get("ready"):
            self._pause = 0.1
            _log.info("responder ready", prefect=said.get("prefect"))
        elif "incident" in said:
            self.counts[f"ended_{said.get('status')}"] += 1
            _log.info("playbook ended", **{key: value for key, value in said.items() if key != "event"})
            if self._ended is not None:
                self._ended(said)
