"""What agents do comes out as lines of telemetry: with the right agent, process and name, and bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clawback.model import (
    Disposition,
    FileActivity,
    KernelActivity,
    Lifecycle,
    ProcessActivity,
    Severity,
)

pytestmark = pytest.mark.kernel

DENIED = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
for _ in range({count}):
    libc.syscall({number}, 0, 0, 0, 0)
print(os.getpid(), flush=True)
time.sleep(600)
"""
PTRACE = 101 if os.uname().machine == "x86_64" else 117


OPEN_A_CANARY = """
import contextlib, time
with contextlib.suppress(PermissionError):
    open('/root/.aws/credentials')
time.sleep(600)
"""


def host_pid(core, agent: str, inner: str) -> int:
    """The host's number of a process that names itself by its own."""
    record = next(one for one in core.records() if one.agent == agent)
    for pid in (record.pid, *map(int, _children(record.pid))):
        status = Path(f"/proc/{pid}/status").read_text()
        if f"NSpid:\t{pid}\t{inner}\n" in status:
            return pid
    raise AssertionError("no such process")


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_denied_system_call_names_the_call_the_process_and_the_agent(core):
    info, out = core.launch(DENIED.format(count=1, number=PTRACE))
    inner = os.read(out, 64).decode().strip()
    event = core.wait_for(lambda one: isinstance(one, KernelActivity), agent=info.agent)
    assert (event.syscall, event.number, event.disposition) == ("ptrace", PTRACE, Disposition.BLOCKED)
    assert event.instance == info.instance
    assert event.pid == host_pid(core, info.agent, inner)
    assert "python3" in event.exe
    beat = core.wait_for(
        lambda one: isinstance(one, Lifecycle) and one.status == "alive" and one.violations > 0, agent=info.agent
    )
    assert beat.violations == 1


def test_opening_a_canary_is_one_report(core):
    info, _ = core.launch(OPEN_A_CANARY)
    event = core.wait_for(lambda one: isinstance(one, FileActivity), agent=info.agent)
    assert (event.path, event.access) == ("/root/.aws/credentials", "canary")
    assert (event.disposition, event.severity) == (Disposition.BLOCKED, Severity.HIGH)
    assert "python3" in event.exe


def test_a_canary_is_seen_after_a_restart_of_the_core(core):
    info, out = core.launch(
        "import time\n"
        "while True:\n"
        "    try: open('/root/.aws/credentials').close()\n"
        "    except PermissionError: pass\n"
        "    print('.')\n"
        "    time.sleep(0.05)"
    )
    os.read(out, 64)
    core.wait_for(lambda one: isinstance(one, FileActivity), agent=info.agent)
    before = core.wait_for(lambda one: isinstance(one, Lifecycle) and one.component == "core").writer
    core.process.kill()
    core.process.wait()
    core.start()
    core.wait_for(lambda one: isinstance(one, FileActivity) and one.writer != before, agent=info.agent)


def test_processes_that_start_and_end(core):
    info, _ = core.launch(
        "import subprocess, time; subprocess.run(['/bin/sh', '-c', 'sleep 0.2; exit 7']); time.sleep(600)"
    )

    def launched(one) -> bool:
        return (
            isinstance(one, ProcessActivity) and one.activity_id == ProcessActivity.LAUNCH and "exit 7" in one.command
        )

    started = core.wait_for(
        lambda one: launched(one) and one.exe != "" and not one.exe.startswith("/usr/bin/python"), agent=info.agent
    )
    ended = core.wait_for(
        lambda one: (
            isinstance(one, ProcessActivity) and one.activity_id == ProcessActivity.TERMINATE and one.pid == started.pid
        ),
        agent=info.agent,
    )
    assert ended.exit_code == 7
    assert started.parent_pid > 0


def test_the_first_program_is_reported_although_it_starts_before_the_launch_is_over(core):
    info, _ = core.launch("import time; time.sleep(600)")
    event = core.wait_for(lambda one: isinstance(one, ProcessActivity) and one.message == "exec", agent=info.agent)
    assert event.instance == info.instance


def test_secrets_in_a_command_line_are_not_written(core):
    token = "hvs." + "A" * 30
    core.launch(f"import subprocess, time; subprocess.run(['/bin/sh', '-c', ': {token}; sleep 600'])")
    core.wait_for(lambda one: isinstance(one, ProcessActivity) and one.command.startswith("/bin/sh -c : "))
    assert token not in (core.state / "telemetry" / "sandbox.jsonl").read_text()


def test_a_flood_of_denials_is_bounded_counted_and_hides_nothing(core):
    info, out = core.launch(DENIED.format(count=20_000, number=PTRACE))
    other, _ = core.launch(OPEN_A_CANARY)
    core.wait_for(lambda one: isinstance(one, FileActivity), agent=other.agent)
    os.read(out, 64)

    def heard() -> int:
        beats = [one for one in core.events(agent=info.agent) if isinstance(one, Lifecycle)]
        return max((one.violations for one in beats), default=0)

    core.until(lambda: heard() >= 20_000, why="the flood was not counted")
    events = core.events(agent=info.agent)
    written = sum(isinstance(one, KernelActivity) for one in events)
    lost = sum(one.lost for one in events if isinstance(one, Lifecycle))
    assert written + lost == 20_000
    assert written < 10_000
    assert lost > 0


def test_ends_are_reported_with_their_status(core):
    info, _ = core.launch("raise SystemExit(3)")
    event = core.wait_for(
        lambda one: isinstance(one, Lifecycle) and one.component == "sandbox" and one.activity_id == Lifecycle.STOP,
        agent=info.agent,
    )
    assert (event.status, event.message) == ("exited", "exit status 3")


def test_numbers_are_unbroken_within_a_writer(core):
    core.launch(DENIED.format(count=50, number=PTRACE))
    core.wait_for(lambda one: isinstance(one, KernelActivity))
    lines = (core.state / "telemetry" / "sandbox.jsonl").read_bytes().split(b"\n")[:-1]
    numbers = [json.loads(line)["metadata"]["sequence"] for line in lines]
    assert numbers == list(range(1, len(numbers) + 1))
