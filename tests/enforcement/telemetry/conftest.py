"""Children under a user id of their own whose filter denies a few calls, and the telemetry that hears of them."""

from __future__ import annotations

import ctypes
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clawback.enforcement.kernel.seccomp import ALLOW, assemble, deny, install
from clawback.enforcement.kernel.syscalls import NUMBER
from clawback.enforcement.telemetry.roster import UIDS, Tracked
from clawback.enforcement.telemetry.sandbox import SandboxTelemetry
from clawback.model import Event
from clawback.model.ocsf import parse_line

_PR_SET_NO_NEW_PRIVS = 38
_LIBC = ctypes.PyDLL(None, use_errno=True)

Act = Callable[[Callable[..., int]], None]


def call(name: str, *arguments: int) -> int:
    """A system call by its name, without a thought for what it does."""
    return int(_LIBC.syscall(*(ctypes.c_long(value) for value in (NUMBER[name], *arguments))))


class Heard:
    """Telemetry of a range of user ids that no other test has, and children that live there."""

    def __init__(self, folder: Path, *, trace: str) -> None:
        self.base = random.randrange(1 << 29, 1 << 30, UIDS)
        self.telemetry = SandboxTelemetry(folder, uid_base=self.base, trace=trace)
        self._path = folder / "sandbox.jsonl"

    def track(self, number: int, *, since_ns: int = 0) -> str:
        """Know a user id as an agent, launched at that time; returns its name."""
        agent = f"agent-{number}"
        tracked = Tracked(
            agent=agent,
            instance=f"{agent}-1",
            uid=self.base + number,
            pid=os.getpid(),
            policy="p",
            policy_version=1,
            since_ns=since_ns,
        )
        self.telemetry.add(tracked, canaries=(), pids=())
        return agent

    def live(self, number: int, act: Act, *denied: str) -> int:
        """Run `act` as that user in a child, these calls denied; returns its pid, which has ended."""
        child = os.fork()
        if child == 0:
            try:
                uid = self.base + number
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                install(assemble(dict.fromkeys(denied, deny()), ALLOW))
                act(call)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed; see its standard error"
        return child

    def events(self, agent: str) -> list[Event]:
        lines = self._path.read_bytes().split(b"\n")[:-1]
        return [event for line in lines if (event := parse_line(line, None)).agent == agent]

    def wait_for(self, agent: str, test: Callable[[Event], bool], *, seconds: float = 10.0) -> Event:
        end = time.monotonic() + seconds
        while True:
            found = next((event for event in self.events(agent) if test(event)), None)
            if found is not None:
                return found
            gate = self.telemetry._from.gate
            assert time.monotonic() < end, (self.events(agent), gate and gate.counted(), self.telemetry.writer.losses)
            time.sleep(0.002)


@pytest.fixture
def heard(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Heard]:
    """`@pytest.mark.parametrize("heard", ["on"], indirect=True)` chooses when calls are traced."""
    if os.geteuid() != 0:
        pytest.skip("the kernel's audit and eBPF are root's")
    made = Heard(tmp_path / "telemetry", trace=getattr(request, "param", "denials"))
    made.telemetry.start()
    yield made
    made.telemetry.close()
