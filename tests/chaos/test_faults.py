"""What chaos calls a full disk, a server that is down, hangs, fails or lies, is that: without it nothing is shown."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from clawback.errors import Unreachable
from clawback.journal import Journal
from clawback.model import Finding, Level, Severity
from clawback.services.postgres import Postgres, find

HERE = Path(__file__).parent
FINDING = Finding(
    detector="chaos", agent="a", instance="i1", severity=Severity.HIGH, technique="T0001", resource="/r", policy="p",
    policy_version=1, title="t", summary="s", time_ns=1, events=("e",), reflex=Level.FREEZE,
)  # fmt: skip
ISSUE = {"fields": {"summary": "s", "labels": ["INC-1"]}, "properties": []}


class Proxies:
    """The process, and how it is told what is to be wrong."""

    def __init__(self, ways: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, str(HERE / "proxies.py"), str(theirs.fileno()), json.dumps(ways)]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        self._file = ours.makefile("rw")
        ours.close()
        self.ports = self.tell()["ports"]

    def tell(self, *faults: tuple[str, str, int, int]) -> Any:
        named = [dict(zip(("part", "kind", "first", "last"), fault, strict=True)) for fault in faults]
        self._file.write(json.dumps({"faults": named, "empty": False}) + "\n")
        self._file.flush()
        return json.loads(self._file.readline())

    def close(self) -> None:
        self._file.close()
        assert self._process.wait(10) == 0


@pytest.fixture
def tracker() -> Iterator[tuple[Proxies, Callable[[], int]]]:
    proxies = Proxies({"tickets": ""})

    def make() -> int:
        url = f"http://127.0.0.1:{proxies.ports['tickets']}/rest/api/3/issue"
        return httpx.post(url, json=ISSUE, timeout=httpx.Timeout(1.0), trust_env=False).status_code

    yield proxies, make
    proxies.close()


@pytest.mark.slow
def test_a_ticket_server_down_failing_slow_hanging_and_lying(tracker: tuple[Proxies, Callable[[], int]]) -> None:
    proxies, make = tracker

    def kept() -> int:
        return len(proxies.tell()["issues"])

    proxies.tell(("tickets", "down", 1, 1000))
    with pytest.raises(httpx.ConnectError):
        make()
    proxies.tell(("tickets", "down", 1, 1))
    with pytest.raises(httpx.RemoteProtocolError):
        make()
    proxies.tell(("tickets", "failing", 1, 1))
    assert make() == 500
    proxies.tell(("tickets", "lying", 1, 1))
    assert make() == 201
    assert kept() == 0
    proxies.tell(("tickets", "hanging", 1, 1))
    with pytest.raises(httpx.ReadTimeout):
        make()
    assert kept() == 1, "it was made, and not answered"
    proxies.tell(("tickets", "slow", 1, 1))
    assert make() == 201
    assert kept() == 2
    assert make() == 201, "and nothing is wrong with what comes after it"
    assert proxies.tell()["lied"] == 1


@pytest.fixture
def database() -> Iterator[Postgres]:
    if find() is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="cb-pg-", dir="/tmp"))
    with Postgres(folder) as server:
        yield server
    shutil.rmtree(folder)


@pytest.mark.parts
@pytest.mark.slow
def test_a_journal_s_server_down_failing_and_hanging(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the server did not answer is `Unreachable`; whether it was done shows when it answers again."""
    from clawback.journal.patient import Patient

    monkeypatch.setattr(Patient, "seconds", 0.5)
    record = Journal(database.create("chaos"))
    proxies = Proxies({"journal": str(database.folder / ".s.PGSQL.5432")})
    journal = Journal(f"postgresql://clawback@127.0.0.1:{proxies.ports['journal']}/chaos?sslmode=disable")

    def opens() -> None:
        journal.open_or_join(FINDING, playbook="chaos")

    try:
        opens()
        proxies.tell(("journal", "down", 1, 1000))
        with pytest.raises(Unreachable):
            opens()
        for kind, why in (("failing", "no space left"), ("hanging", "no answer within")):
            for first in (3, 4, 6):  # what comes before is the connection
                journal.dispose()
                proxies.tell(("journal", kind, first, first))
                with pytest.raises(Unreachable, match=why):
                    opens()
        journal.dispose()
        proxies.tell()
        opens()
        assert len(record.incidents()) == 1
        assert record.audit_verify()[1] == []
    finally:
        journal.dispose()
        record.dispose()
        proxies.close()


FULL = """
import sys
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("disk", sys.argv[1])
disk = importlib.util.module_from_spec(spec)
spec.loader.exec_module(disk)
why = disk.own_mounts()
if why:
    sys.exit(f"skip: {why}")
from clawback.errors import Unreachable
from clawback.journal import Journal
folder = Path(sys.argv[2])
own = disk.Disk(folder)
journal = Journal(f"sqlite:///{folder / 'journal.db'}")
own.fill(0)
try:
    journal.override(1, seconds=60, reason="x" * 400, by="chaos")
except Unreachable as error:
    print(error.message)
else:
    sys.exit("it was not full")
own.free()
journal.override(1, seconds=60, reason="x" * 400, by="chaos")
assert journal.audit_verify()[1] == []
journal.dispose()
print(len(list(folder.iterdir())) > 0, folder.is_mount())
input()
own.close()
"""


@pytest.mark.slow
def test_a_disk_that_is_full_and_free_again_is_nobody_else_s(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount: chaos uses SQLite's page limit instead, and says so")
    (tmp_path / "disk").mkdir()
    command = [sys.executable, "-c", FULL, str(HERE / "disk.py"), str(tmp_path / "disk")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        said = run.stdout.readline()
        if not said and "skip:" in (why := run.communicate()[1]):
            pytest.skip(why.strip())
        assert "full" in said or "I/O" in said, said + (run.communicate()[1])
        assert run.stdout.readline().split() == ["True", "True"]
        assert list((tmp_path / "disk").iterdir()) == [], "the host sees nothing of it"
        assert run.communicate("\n")[1] == ""
    assert run.returncode == 0
