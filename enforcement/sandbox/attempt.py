"""Try forbidden things from inside an agent's sandbox, under all that the agent is under: the victim's view."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

from clawback.enforcement.kernel import capabilities, cgroups, libc, namespaces
from clawback.enforcement.kernel.syscalls import NUMBER
from clawback.enforcement.sandbox import init, inventory, wire
from clawback.enforcement.sandbox.job import INSIDE_ID, Restrictions
from clawback.enforcement.sandbox.record import GATEWAY_PORT, Sandbox
from clawback.errors import InvalidInput, NotFound
from clawback.model import Attempt, AttemptResult

__all__ = ["KINDS", "Runner", "attempt"]

KINDS = ("open", "http", "connect", "syscall", "spawn")
_NETWORK_TIMEOUT = 2.0
_DENIED = {errno.EPERM, errno.ENOSYS, errno.EACCES}
_MAX_ANSWER = 8192
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
        if item.kind not in KINDS:
            raise InvalidInput(f"attempt {item.kind!r}: not one of {', '.join(KINDS)}")
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
    group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if cgroup and not frozen else None
    leaves = [] if frozen else [f"{path}/tasks" for path in controllers.values()]
    ours, theirs = socket.socketpair()
    try:
        child = libc.clone3(0, cgroup_fd=group)
    except OSError as error:
        return [[True, f"no process can be started: {_name(error)}"] for _ in attempts]
    if child == 0:
        ours.close()
        _guarded(theirs, lambda: _joined(pidfd, leaves, attempts, given, time.monotonic() + timeout))
    theirs.close()
    answer, _ = wire.receive(ours)
    os.waitpid(child, 0)
    if "error" in answer:
        raise OSError(answer["errno"], answer["error"])
    note = "outside the frozen cgroup: " if frozen else ""
    return [[denied, note + detail] for denied, detail in answer["result"]]


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


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _joined(
    pidfd: int, leaves: list[str], attempts: list[list[str]], given: Restrictions, deadline: float
) -> list[tuple[bool, str]]:
    for leaf in leaves:
        Path(leaf).write_text("0")  # 0 is the writer itself; moving oneself waits for no grace period
    namespaces.enter(pidfd)
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    capabilities.drop_bounding()
    os.chdir("/")
    return [_bounded(kind, target, given, deadline) for kind, target in attempts]


def _bounded(kind: str, target: str, given: Restrictions, deadline: float) -> tuple[bool, str]:
    """One attempt in a child that is killed when it takes too long."""
    ours, theirs = socket.socketpair()
    with ours:
        try:
            child = os.fork()
        except OSError as error:
            theirs.close()
            return True, f"no process can be started: {_name(error)}"
        if child == 0:
            ours.close()
            _guarded(theirs, lambda: _restricted(kind, target, given))
        theirs.close()
        ours.settimeout(max(0.05, min(_EACH, deadline - time.monotonic())))
        try:
            answer, _ = wire.receive(ours)
        except TimeoutError:
            answer = {"result": (False, "no outcome in time")}  # not seen to be refused
        except (wire.Closed, ConnectionResetError):
            answer = {"result": (True, "killed")}  # by a filter or a limit that the agent is under too
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if "error" in answer:
        # The attempt itself broke: that proves nothing, and must not pass for a denial.
        raise OSError(answer["errno"], f"{kind} {target}: {answer['error']}")
    denied, detail = answer["result"]
    return bool(denied), str(detail)[:500]


def _restricted(kind: str, target: str, given: Restrictions) -> tuple[bool, str]:
    init.apply_restrictions(given)
    return _TRY[kind](target)


def _open(path: str) -> tuple[bool, str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        return True, _name(error)
    try:
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3) and path != "/dev/null":
            return True, "masked by the null device"
        if stat.S_ISDIR(status.st_mode):
            return False, "opened, a folder"
        try:
            return False, "opened, readable" if os.read(fd, 1) else "opened, empty"
        except OSError as error:
            return True, f"opened, reading: {_name(error)}"
    finally:
        os.close(fd)


def _ask_gateway(request: bytes) -> tuple[bool, str]:
    """Send a request to the gateway; denied where it says 403 or cannot be reached. Silence is no denial."""
    answer = b""
    reached = False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(_NETWORK_TIMEOUT)
            sock.connect(("127.0.0.1", GATEWAY_PORT))
            reached = True
            sock.sendall(request)
            while b"\r\n" not in answer and len(answer) < _MAX_ANSWER:
                part = sock.recv(1024)
                if not part:
                    break
                answer += part
    except TimeoutError:
        return not reached, "no answer from the gateway" if reached else "ETIMEDOUT"
    except OSError as error:
        return True, _name(error)
    words = answer.split(b"\r\n", 1)[0].decode("utf-8", "backslashreplace").split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return True, "connection closed without an answer"
    return words[1] == "403", " ".join(["HTTP", *words[1:]])


def _connect(target: str) -> tuple[bool, str]:
    line = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
    return _ask_gateway(line.encode())


def _http(target: str) -> tuple[bool, str]:
    method, _, url = target.partition(" ")
    parts = urlsplit(url)
    if parts.scheme == "https":
        denied, detail = _connect(f"{parts.hostname}:{parts.port or 443}")
        return denied, f"CONNECT: {detail}"
    head = f"{method} {url} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    return _ask_gateway(head.encode())


def _syscall(name: str) -> tuple[bool, str]:
    if name not in NUMBER:
        return True, "ENOSYS: no such call on this machine"
    # A null flag word asks these two for nothing; what is meant is a namespace.
    flags = {"unshare": libc.CLONE_NEWUSER, "clone": libc.CLONE_NEWUSER | signal.SIGCHLD}.get(name, 0)
    try:
        result = libc.syscall(NUMBER[name], flags, 0, 0, 0, 0, 0)
    except OSError as error:
        return error.errno in _DENIED, _name(error)
    if result == 0 and name in {"fork", "vfork", "clone", "clone3"}:
        os._exit(0)
    return False, f"returned {result}"


def _spawn(path: str) -> tuple[bool, str]:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        child = os.posix_spawn(
            path, [path], {"PATH": "/usr/bin:/bin"}, file_actions=[(os.POSIX_SPAWN_DUP2, null, n) for n in range(3)]
        )
    except OSError as error:
        return True, _name(error)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False, "started"


_TRY: dict[str, Callable[[str], tuple[bool, str]]] = {
    "open": _open,
    "http": _http,
    "connect": _connect,
    "syscall": _syscall,
    "spawn": _spawn,
}
