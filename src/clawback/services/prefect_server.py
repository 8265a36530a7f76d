"""An own Prefect server as a supervised child: loopback only, SQLite in the state folder, nothing that calls home.

    with PrefectServer(settings.state, port=settings.prefect.port) as server:
        server.api_url, server.environment

Its API is protected by a random credential of this state folder, so that other users of the machine cannot set the
state of a flow. The credential goes to the children by environment, never on a command line.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import os
import secrets
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from clawback.services.process import Service, free_port

__all__ = ["PrefectServer", "client_environment", "credential"]

_log = structlog.get_logger()


def credential(state: Path) -> str:
    """The API's credential, `user:password`, made on first use and readable by this user alone."""
    path = state / "prefect" / "credential"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"clawback:{secrets.token_urlsafe(24)}")
    except FileExistsError:
        pass
    return path.read_text().strip()


def client_environment(state: Path, api_url: str, *, authenticated: bool = True) -> dict[str, str]:
    """Prefect's settings for a process that runs flows: own home, no telemetry, no call that a run does not need."""
    home = state / "prefect"
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),  # never the user's
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        "PREFECT_API_REQUEST_TIMEOUT": "5",
    } | ({"PREFECT_API_AUTH_STRING": credential(state)} if authenticated else {})


def _template() -> Path:
    """An empty database of this version of Prefect, kept in the user's cache: making one takes Prefect 5 s."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clawback" / f"prefect-{importlib.metadata.version('prefect')}.db"


def _copy(source: Path, target: Path) -> None:
    """Copy a database, in use or not, whole or not at all. Only time is lost where that fails."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".prefect-")
        os.close(handle)
        try:
            with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(name)) as copy:
                original.backup(copy)
            Path(name).rename(target)
        finally:
            Path(name).unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        _log.warning("prefect's database template is not used", error=type(error).__name__)


class PrefectServer(Service):
    """The server. Ready in 2 to 7 s, the first time for a user longer: it creates its database.

    database_url   of PostgreSQL, as SQLAlchemy has it for asyncpg; empty: SQLite in the state folder
    """

    def __init__(self, state: Path, *, port: int = 0, database_url: str = "", deadline: float = 60.0) -> None:
        self.state = state
        self._sqlite = not database_url
        self.port = port or free_port()
        home = state / "prefect"
        super().__init__(
            "prefect",
            [sys.executable, "-m", "clawback.orchestrate.server", str(self.port)],
            log=home / "server.log",
            environment=self.environment
            | {
                "PREFECT_SERVER_API_HOST": "127.0.0.1",
                "PREFECT_SERVER_API_PORT": str(self.port),  # where the UI looks for the API
                "PREFECT_SERVER_API_AUTH_STRING": credential(state),
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url or f"sqlite+aiosqlite:///{home / 'prefect.db'}",
                "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
                "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
                "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
            },
            ready=self._healthy,
            deadline=deadline,
        )

    @property
    def api_url(self) -> str:
        """Where clients call."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """What a process that runs flows against this server needs."""
        return client_environment(self.state, self.api_url)

    def start(self) -> Self:
        """Start, and leave the address where a responder that was started by itself finds it."""
        database, template = self.state / "prefect" / "prefect.db", _template()
        if self._sqlite and not database.exists() and template.is_file():
            _copy(template, database)
        super().start()
        (self.state / "prefect" / "api_url").write_text(self.api_url + "\n")
        if self._sqlite and not template.exists():
            _copy(database, template)
        return self

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
