"""Try forbidden things from inside an agent's sandbox, under all that the agent is under: the victim's view."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

from clawback.enforcement.kernel import capabilities, cgroups, libc, namespaces
from clawback.enforcement.sandbox import init, inventory, trying, wire
from clawback.enforcement.sandbox.job import INSIDE_ID, Restrictions
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.restrict import Escalating
from clawback.errors import InvalidInput, NotFound
from clawback.model import Attempt, AttemptResult

__all__ = ["Runner", "attempt"]

_EACH = 3.0


class Runner(Protocol):
    """What an attempt needs of the spawner."""

    def run(
        self, function: str, arguments: dict[str, Any], *, fds: Sequence[int] = (), timeout: float = 10.0
    ) -> Any:  # pragma: no cover
        """See `Spawner.run`."""
        ...


def attempt(
    runner: Runner, record: Sandbox, attempts: Sequence[Attempt], *, timeout: float = 10.0
) -> tuple[AttemptResult, ...]:
    """Each attempt's outcome, in order; never hangs, never thaws.

    Under a frozen cgroup nothing could run, so the attempts are made outside that cgroup, under everything else, and
    their details say so. `NotFound` when the sandbox is gone, `InvalidInput` for an unknown kind, `NotEnforced` past
    `timeout` seconds, `OSError` where an attempt itself broke and so proves nothing.
    """
    for item in attempts:
        if item.kind not in trying.TRY:
            raise InvalidInput(f"attempt {item.kind!r}: not one of {', '.join(trying.TRY)}")
    if not inventory.is_process(record.pid, record.start_ticks):
        raise NotFound(f"agent {record.agent}: instance {record.instance} is not running")
    answers = runner.run(
        "clawback.enforcement.sandbox.attempt:inside",
        {
            "pid": record.pid,
            "ticks": record.start_ticks,
            "cgroup": record.cgroup,
            "controllers": record.controllers,
            "restrictions": json.loads(Path(record.folder, "restrictions.json").read_text()),
            "attempts": [[item.kind, item.target] for item in attempts],
            "timeout": timeout * 0.9,
        },
        timeout=timeout,
    )
    return tuple(
        AttemptResult(attempt=item, denied=bool(denied), detail=str(detail))
        for item, (denied, detail) in zip(attempts, answers, strict=True)
    )


def inside(
    *,
    pid: int,
    ticks: int,
    cgroup: str,
    controllers: dict[str, str],
    restrictions: dict[str, Any],
    attempts: list[list[str]],
    timeout: float,
) -> list[list[Any]]:
    """In a helper process: one child joins the sandbox, and each attempt is made by a restricted child of that one."""
    given = Restrictions.from_json(restrictions)
    frozen = bool(cgroup) and cgroups.is_frozen(cgroup)
    pidfd = os.pidfd_open(pid)
    if not inventory.is_process(pid, ticks):
        raise ProcessLookupError(errno.ESRCH, f"process {pid} is no longer the sandbox's")
    groups = [] if frozen else [*([f"{cgroup}/cgroup.procs"] if cgroup else []), *_tasks(controllers)]
    end = time.monotonic() + timeout
    try:
        group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if cgroup and not frozen else None
        now = [] if frozen else _tasks(controllers)
        found = _in_child(group, lambda: _joined(pidfd, attempts, given, end, now=now))
    except BlockingIOError:
        # The agent has all the processes that it may have, which its own do not need: those made outside are moved in.
        found = _in_child(None, lambda: _joined(pidfd, attempts, given, end, later=groups))
    note = "outside the frozen cgroup: " if frozen else ""
    return [[denied, note + detail] for denied, detail in found]


def _tasks(controllers: dict[str, str]) -> list[str]:
    return [f"{path}/tasks" for path in controllers.values()]


def _in_child(group: int | None, work: Callable[[], Any]) -> Any:
    """The result of some work in a child, born into a cgroup where one is given. `OSError` where it failed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = libc.clone3(0, cgroup_fd=group)
        if child == 0:
            ours.close()
            _guarded(theirs, work)
        theirs.close()
        try:
            answer, _ = wire.receive(ours)
        finally:
            os.waitpid(child, 0)
    if "error" in answer:
        raise OSError(answer["errno"], answer["error"])
    return answer["result"]


def _guarded(to: socket.socket, work: Callable[[], Any]) -> NoReturn:
    """In a child: send what the work returns or fails with, and end."""
    try:
        answer = {"result": work()}
    except OSError as error:
        answer = {"error": str(error), "errno": error.errno}
    except BaseException as error:  # the parent waits for an answer whatever happens
        answer = {"error": f"{type(error).__name__}: {error}", "errno": 0}
    with contextlib.suppress(OSError):
        wire.send(to, answer)
    os._exit(0)


def _joined(
    pidfd: int,
    attempts: list[list[str]],
    given: Restrictions,
    deadline: float,
    *,
    now: Sequence[str] = (),
    later: Sequence[str] = (),
) -> list[tuple[bool, str]]:
    """Join groups `now`, or have each attempt join them `later`; they are opened while they can be seen and written."""
    for leaf in now:
        Path(leaf).write_text("0")  # 0 is the writer itself; moving oneself waits for no grace period
    groups = [os.open(leaf, os.O_WRONLY | os.O_CLOEXEC) for leaf in later]
    namespaces.enter(pidfd)
    # The saved group stays the one outside. With all six ids its own, the agent could lower the limits of whoever looks
    # (prlimit(2)), and have an attempt fail that does not fail for the agent.
    os.setresgid(INSIDE_ID, INSIDE_ID, -1)
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    capabilities.drop_bounding()
    os.chdir("/")
    return [_bounded(kind, target, given, deadline, groups) for kind, target in attempts]


def _bounded(kind: str, target: str, given: Restrictions, deadline: float, groups: list[int]) -> tuple[bool, str]:
    """One attempt in a child that is killed when it takes too long."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if child == 0:
            ours.close()
            _guarded(theirs, lambda: _restricted(kind, target, given, groups))
        theirs.close()
        ours.settimeout(max(0.05, min(_EACH, deadline - time.monotonic())))
        ended = False
        try:
            answer, _ = wire.receive(ours)
        except TimeoutError:
            answer = {"result": (False, "no outcome in time")}  # not seen to be refused
        except (wire.Closed, ConnectionResetError):
            ended = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    if ended:
        answer = _ending(os.waitstatus_to_exitcode(status))
    if "error" in answer:
        # The attempt itself broke: that proves nothing, and must not pass for a denial.
        raise OSError(answer["errno"], f"{kind} {target}: {answer['error']}")
    denied, detail = answer["result"]
    return bool(denied), str(detail)[:500]


def _ending(status: int) -> dict[str, Any]:
    """Killed by a filter is refused; by anything else, which the agent may have a hand in, says nothing."""
    if status == -signal.SIGSYS:
        return {"result": (True, "killed by SIGSYS")}
    return {"errno": errno.ECHILD, "error": f"the attempt ended without an outcome: {status}"}


def _restricted(kind: str, target: str, given: Restrictions, groups: list[int]) -> tuple[bool, str]:
    for group in groups:
        os.write(group, b"0")
        os.close(group)
    # Nobody would answer an attempt's escalated call. Left out, it shows what is denied whatever a supervisor decides;
    # refused for want of one, it would pass for a denial that the agent is not under.
    init.apply_restrictions(given, Escalating.LEFT_OUT)
    before = trying.limits()
    result = trying.TRY[kind](target)
    if trying.limits() != before:
        raise InterruptedError(errno.EINTR, "its limits were changed meanwhile")
    return result
