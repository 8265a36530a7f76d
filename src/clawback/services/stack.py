"""All of Clawback on one machine: Prefect's server, the gateway, the core and watch, started in order and kept running.

The core and the gateway are started first and depend on nothing, so that containment works whatever else does not come
up. A part that ends is started again, with a growing pause.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from clawback.config import Settings
from clawback.enforcement.core.client import CoreClient
from clawback.enforcement.gateway.client import GatewayClient
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.errors import ClawbackError
from clawback.model import Lifecycle, Severity, Source
from clawback.services.prefect_server import PrefectServer
from clawback.services.process import Service

__all__ = ["Stack"]

_log = structlog.get_logger()
_LONGEST_PAUSE = 1.0  # seconds between attempts to start a part again: a part that is away answers no alert


class Stack:
    """The running parts.

    with Stack(settings, config_file=path) as stack:
        while running:
            stack.tend()

    host_network   path of the network namespace that the core is to run in; None: the caller's
    """

    def __init__(self, settings: Settings, *, config_file: Path | None, host_network: Path | None = None) -> None:
        self.settings = settings
        self._config_file = config_file.resolve() if config_file else None
        self._host_network = host_network
        self.prefect: PrefectServer | None = None
        self.gateway = self._part("gateway", lambda: GatewayClient(settings.gateway_socket).health() is not None)
        self.core = self._part("core", lambda: CoreClient(settings.core_socket).health() is not None)
        self.watch: Service | None = None
        self.answers: Service | None = None
        self._problem = ""
        self._pauses: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._reported: set[str] = set()

    def start(self) -> Self:
        """Start all of them; returns when the core, the gateway and watch answer."""
        for folder in (self.settings.state, self.settings.run, self.settings.telemetry):
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(1) as pool:
            server: Future[PrefectServer] | None = None
            if self.settings.prefect.api_url is None:
                chosen = self.settings.prefect
                server = pool.submit(
                    lambda: PrefectServer(
                        self.settings.state, port=chosen.port, database_url=chosen.database_url
                    ).start()
                )
            try:
                self.gateway.start()
                self.core.start()
                if server is not None:
                    self.prefect = self._or_without(server)
                self.watch = self._part("watch", self._watch_ready).start()
                if self.settings.approvals.channels:
                    self.answers = self._answers_or_not()
            except BaseException:
                if server is not None and self.prefect is None:
                    server.add_done_callback(lambda done: None if done.exception() else done.result().stop())
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Stop them in the reverse order. Agents keep running, under whatever hold they are."""
        for part in (self.answers, self.watch, self.core, self.gateway):
            if part is not None:
                part.stop()
        if self.prefect is not None:
            self.prefect.stop()

    def tend(self) -> None:
        """Start again what has ended, each part after a pause that grows with every time that it ends."""
        for part in (self.gateway, self.core, self.watch, self.prefect, self.answers):
            if part is None or part.running:
                continue
            now = time.monotonic()
            if now < self._due.get(part.name, 0.0):
                continue
            pause = min(self._pauses.get(part.name, 0.1) * 2, _LONGEST_PAUSE)
            self._pauses[part.name], self._due[part.name] = pause, now + pause
            _log.warning("a part ended; starting it again", part=part.name)
            if part.name not in self._reported:
                # Before it is started again, which may take seconds: whoever watches must know at once.
                self._reported.add(part.name)
                self._say(part.name, "lost", "it ended and was not stopped; agents run on as they are")
            try:
                part.start()
                self._reported.discard(part.name)
                self._say(part.name, "started", "started again")
            except ClawbackError as error:
                _log.error("a part does not start", part=part.name, error=error.message, hint=error.hint)

    def _say(self, part: str, status: str, message: str) -> None:
        """Into the telemetry, which a part that is gone cannot do itself."""
        lost = status == "lost"
        try:
            writer = TelemetryWriter(self.settings.telemetry, Source.SANDBOX)
        except OSError as error:
            _log.error("not in the telemetry", part=part, status=status, error=error.strerror)
            return
        writer.emit(
            Lifecycle,
            activity_id=Lifecycle.STOP if lost else Lifecycle.START,
            severity=Severity.HIGH if lost else Severity.INFORMATIONAL,
            component=part,
            status=status,
            message=message,
        )
        writer.close()

    def describe(self) -> list[str]:
        """What runs where, for the terminal."""
        state = self.settings.state
        lines = [
            f"core      pid {self.core.pid}  {self.settings.core_socket}",
            f"gateway   pid {self.gateway.pid}  {self.settings.gateway_socket}",
            f"watch     pid {self.watch.pid if self.watch else 0}  {state / 'telemetry'}",
        ]
        if self.prefect is not None:
            lines.append(f"prefect   {self.prefect.api_url.removesuffix('/api')}")
        elif self._problem:
            lines.append(f"prefect   not running: {self._problem}; playbooks run directly and are marked degraded")
        if self.answers is not None:
            lines.append(f"answers   pid {self.answers.pid}  http://{self.settings.approvals.listen}")
        return lines

    def _answers_or_not(self) -> Service:
        """The listener for signed callbacks. Without it people still answer by the command line."""
        part = self._part("answers", self._listening, words=("approvals", "serve"))
        try:
            part.start()
        except ClawbackError as error:
            _log.error("callbacks are not taken", error=error.message, hint=error.hint)
        return part

    def _listening(self) -> bool:
        host, _, port = self.settings.approvals.listen.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True

    def _or_without(self, server: Future[PrefectServer]) -> PrefectServer | None:
        try:
            return server.result()
        except ClawbackError as error:  # containment does not need it
            self._problem = error.message
            _log.error("Prefect's server does not start", error=error.message, hint=error.hint)
            return None

    def _part(self, name: str, ready: Callable[[], bool], *, words: tuple[str, ...] = ()) -> Service:
        options = ["--state", str(self.settings.state)]
        if self._config_file is not None:
            options += ["--config", str(self._config_file)]
        command = [sys.executable, "-m", "clawback", *options, *(words or (name,))]
        if name == "core" and self._host_network is not None:
            command = [
                sys.executable,
                "-m",
                "clawback.services.within",
                str(self._host_network),
                "clawback",
                *options,
                name,
            ]
        environment = {key: value for key, value in os.environ.items() if key.startswith("CLAWBACK_")}
        environment["HOME"] = os.environ.get("HOME", "/")
        if self.prefect is not None:
            environment["CLAWBACK_PREFECT__API_URL"] = self.prefect.api_url
        return Service(
            name, command, log=self.settings.state / "log" / f"{name}.log", environment=environment, ready=ready
        )

    def _watch_ready(self) -> bool:
        return (self.settings.run / "watch.sock").exists()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
