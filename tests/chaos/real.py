"""Trials whose issuers, tracker, journal and Prefect are real servers, each behind a proxy that spoils its answers.

Core and gateway stay in memory, outside the lives. What is not installed is left out, and said (`missing`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.outside import Fault
from chaos.plan import SERVERS
from memory_world.world import MemoryWorld

from clawback.catalog import Catalog
from clawback.config import JiraSettings, Settings
from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.connectors.jira import Jira
from clawback.connectors.secret_store import FileSecretStore
from clawback.connectors.tracked_tickets import TrackedTickets
from clawback.connectors.vault import VaultConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.errors import ClawbackError
from clawback.journal import Journal
from clawback.orchestrate.engine import Engine
from clawback.orchestrate.link import Link
from clawback.playbook import Playbook
from clawback.services.ministack import Ministack
from clawback.services.openbao import OpenBao
from clawback.services.postgres import Postgres, find
from clawback.services.prefect_server import PrefectServer, client_environment
from clawback.world import World

__all__ = ["Real"]

_LATER = 61.0  # from one life to the next: the tracker's index has had its time
_TEMPLATE = "template_of_trials"


class Real:
    """Servers that are started once. Every other trial's flows are Prefect's; the rest do without."""

    patience = 300.0

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self.missing: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._folder = folder = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        token = folder / "jira-token"
        token.write_text("made up for chaos")
        token.chmod(0o600)
        self._bao = self._stack.enter_context(OpenBao(folder / "openbao"))
        self._aws = self._stack.enter_context(Ministack(folder / "ministack"))
        prefect = self._stack.enter_context(PrefectServer(folder))
        ways = {
            "vault": self._bao.address.removeprefix("http://"),
            "aws": self._aws.endpoint_url.removeprefix("http://"),
            "tickets": "",
            "prefect": f"127.0.0.1:{prefect.port}",
        }
        self._postgres: Postgres | None = None
        if find() is None:
            self.missing.append("PostgreSQL is not installed: the journal is SQLite's, and nothing is wrong with it")
        else:
            self._postgres = self._stack.enter_context(Postgres(folder / "postgres"))
            Journal(self._postgres.create(_TEMPLATE)).dispose()
            ways["journal"] = str(folder / "postgres" / ".s.PGSQL.5432")
        self._proxies(ways)
        url = f"http://127.0.0.1:{self._ports['prefect']}/api"
        (folder / "prefect" / "api_url").write_text(url)
        # Prefect reads its settings when it is imported: here once, not in each life.
        os.environ.update(client_environment(folder, url))
        import clawback.orchestrate.flow  # noqa: F401

        self._settings = Settings(state=folder)

    def _proxies(self, ways: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, str(Path(__file__).with_name("proxies.py")), str(theirs.fileno()), json.dumps(ways)]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._stack.callback(process.wait)
        self._stack.callback(ours.close)
        self._control = self._stack.enter_context(ours.makefile("rw"))
        self._ports = self._tell((), empty=True)["ports"]

    def _tell(self, faults: tuple[Fault, ...], *, empty: bool = False) -> Any:
        order = {"faults": [dataclasses.asdict(fault) for fault in faults], "empty": empty}
        self._control.write(json.dumps(order) + "\n")
        self._control.flush()
        return json.loads(self._control.readline())

    # -- as `trial.Place` has it -------------------------------------------------------------------------------------

    def begin(self, folder: Path, seed: int) -> Any:
        name = f"t{next(self._numbers)}"
        token, grants = self._bao.provision(name), self._aws.provision(name)
        store = FileSecretStore(folder / "secrets")
        held = ((token.ref, token.token), (grants.key_ref, grants.key), (grants.session_ref, grants.session))
        there = MemoryWorld(folder / "evidence", agent=name, secrets=store, held=held)
        there.agent, there.prefect, there.lied, there.lives = name, seed % 2 == 0, 0, 0
        there.own = self._own(there, folder, store)
        there.world = dataclasses.replace(there.world, **there.own)
        there.first_token = token.ref.identifiers["accessor"]
        there.first_key = grants.key_ref.identifiers["access_key_id"]
        there.vault, there.keys = _Tokens(self._bao, name), lambda: self._keys(name)
        self._lied_before = self._tell((), empty=True)["lied"]
        there.tickets = _Issues({})
        if self._postgres is None:
            there.url = there.record = f"sqlite:///{folder / 'journal.db'}"
        else:
            self._sql(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
            there.record = self._postgres.url(name)
            there.url = f"postgresql://clawback@127.0.0.1:{self._ports['journal']}/{name}?sslmode=disable"
        return there

    def _own(self, there: Any, folder: Path, store: FileSecretStore) -> dict[str, Any]:
        at = {name: f"http://127.0.0.1:{port}" for name, port in self._ports.items()}
        vault = VaultConnector(at["vault"], self._bao.token_file)
        cloud = AwsConnector(
            region=self._aws.region, endpoint_url=at["aws"], credentials_file=self._aws.credentials_file
        )
        jira = JiraSettings(base_url=at["tickets"], project="SEC", token_file=self._folder / "jira-token")
        return {
            "secrets": store,
            "vault_or_none": vault,
            "vault_records_or_none": VaultRecordsConnector(vault, audit_log=self._bao.audit_log),
            "cloud_or_none": cloud,
            "cloud_records_or_none": AwsRecordsConnector(cloud),
            "tickets": TrackedTickets(
                folder / "tickets", Jira(jira), {}, clock=lambda: time.time() + _LATER * there.lives
            ),
        }

    def wrong(self, there: Any, faults: tuple[Fault, ...]) -> None:
        there.lives += 1
        state = self._tell(tuple(fault for fault in faults if fault.part in SERVERS))
        there.lied = state["lied"] - self._lied_before
        there.tickets.issues = state["issues"]

    def end(self, there: Any) -> None:
        if self._postgres is not None:
            self._sql(f"DROP DATABASE IF EXISTS {there.agent} WITH (FORCE)")

    def respond(self, there: Any, journal: Journal, world: World, playbook: Playbook, incident: str) -> None:
        engine = Engine(journal, lambda: world, {playbook.id: playbook}, actions=self._catalog.actions)
        asyncio.run(self._respond(engine, incident, shown=there.prefect))

    async def _respond(self, engine: Engine, incident: str, *, shown: bool) -> None:
        link = Link(self._settings, engine)
        if shown:
            await link.look()
        try:
            end = await engine.run(incident)
        finally:
            await link.close()
            engine.close()
        if end.error:
            raise ClawbackError(end.error)

    def _sql(self, statement: str) -> None:
        import psycopg

        assert self._postgres is not None
        where = {"host": str(self._postgres.folder), "user": "clawback", "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute(statement)  # type: ignore[call-overload]

    def _keys(self, user: str) -> dict[str, str]:
        found = self._aws.client("iam").list_access_keys(UserName=user)["AccessKeyMetadata"]
        return {key["AccessKeyId"]: key["Status"] for key in found}


class _Tokens:
    """The agent's tokens as OpenBao itself knows them, past the proxy."""

    def __init__(self, bao: OpenBao, agent: str) -> None:
        self._server, self._agent = VaultConnector(bao.address, bao.token_file), agent

    @property
    def live(self) -> dict[str, tuple[str, dict[str, Any]]]:
        # What replaced a token that the issuer no longer knew bears our own name for it alone.
        named = ({"agent": self._agent}, {"clawback_agent": self._agent})
        found = {accessor for name in named for accessor in self._server.token_find(name)}
        facts = {accessor: self._server.token_lookup(accessor) for accessor in found}
        return {accessor: ("", about) for accessor, about in facts.items() if about is not None}


class _Issues:
    """The tracker's issues, by the incident that each is labelled with; a second one of it stands by its own key."""

    def __init__(self, issues: dict[str, list[str]]) -> None:
        self.issues = issues

    @property
    def texts(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for key, labels in self.issues.items():
            (incident,) = (label for label in labels if label.startswith("INC-"))
            texts[key if incident in texts else incident] = key
        return texts
