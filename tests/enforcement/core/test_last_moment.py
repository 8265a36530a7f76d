"""A hold that comes while an agent is being made: refused before its first instruction, at the last look there is."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.core.claims import unclaimed_uid_base
from clawback.enforcement.core.parts import CoreParameters
from clawback.enforcement.core.service import Service
from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.spawner import Spawner
from clawback.errors import NotFound, Refused
from clawback.model import Level, Selector, SelectorKind

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: outer user ids, cgroups and the kernel's audit"),
]

SAY = "import os; os.write(1, b'it ran')"


@pytest.fixture
def service() -> Iterator[Service]:
    state = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    (state / "run").mkdir()
    group = f"clawback-last-{secrets.token_hex(4)}"
    made = Service(CoreParameters(state=state, cgroup=group, uid_base=unclaimed_uid_base(), trace="off"))
    made.start()
    yield made
    for record in inventory.read_all(state)[0]:
        if inventory.is_process(record.pid, record.start_ticks):
            os.kill(record.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while any(inventory.is_process(one.shim_pid, one.shim_start_ticks) for one in inventory.read_all(state)[0]):
        assert time.monotonic() < end, "a shim is left"
        time.sleep(0.005)
    made.close()
    while not cgroups.remove_parent(cgroups.discover(), group):  # who was refused may still be ending
        assert time.monotonic() < end, f"{group} is left"
    shutil.rmtree(state)


def at_the_last_moment(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do this when the sandbox is there with its restrictions, and the core is asked to look at it."""
    launch = Spawner.launch

    def held_up(self: Spawner, *words: Any, prepared: Callable[[Sandbox], None], **more: Any) -> Any:
        def then(box: Sandbox) -> None:
            act()
            prepared(box)

        return launch(self, *words, prepared=then, **more)

    monkeypatch.setattr(Spawner, "launch", held_up)


def said(service: Service, spec: Any) -> bytes:
    """What the agent printed by the end of the attempt to start it, which is refused."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(Refused, match="held"):
        service.starts.launch(spec, stdio=(null, write, os.dup(write)))  # closed there, so that an end is seen here
    with os.fdopen(read, "rb") as output:
        return output.read()


def test_a_halt(service: Service, make_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    halts = []

    def halt() -> None:
        all_ = Selector(kind=SelectorKind.ALL)
        halts.append(service.halting.halt(all_, Level.FREEZE, reason="r", by="b", uid=0))

    at_the_last_moment(monkeypatch, halt)
    assert said(service, make_spec(SAY, agent="late")) == b""
    (report,) = halts
    assert report.agents == ()  # it was nobody yet, and never became anybody
    with pytest.raises(NotFound):
        service.parts.agent("late")
    service.halting.lift(report.halt.id, reason="r", by="b", uid=0)


def test_a_parent_that_is_held(service: Service, make_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    info = service.starts.launch(make_spec("import time; time.sleep(600)", agent="top"))

    def contain() -> None:
        service.orders.contain("top", Level.FREEZE, reason="r", by="b", uid=0)

    with monkeypatch.context() as patch:
        at_the_last_moment(patch, contain)
        assert said(service, make_spec(SAY, agent="below", parent="top")) == b""
    service.orders.contain(info.agent, Level.STOP, reason="r", by="b", uid=0)
