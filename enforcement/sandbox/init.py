"""Process 1 of a sandbox: builds the tree from inside, gives up every right, starts the command, reaps, ends with it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from clawback.enforcement.kernel import capabilities, landlock, libc, mounts, namespaces, seccomp
from clawback.enforcement.sandbox import filters, tree, wire
from clawback.enforcement.sandbox.job import INSIDE_ID, Restrictions
from clawback.enforcement.sandbox.record import GATEWAY_PORT

__all__ = ["EXIT", "apply_restrictions", "run"]

ROOT = "/sys"
"""Where the new root is put together: a folder that every host has and that nobody wants to see inside."""

EXIT = struct.Struct("BB")
"""The one thing the init says at the end: exit status and signal. Fixed size, for an agent may have taken it over."""

_PR_SET_NAME = 15
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def _listener() -> socket.socket:
    """The gateway's socket: one for IPv4 and IPv6; only loopback exists here, so any address is loopback."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", GATEWAY_PORT))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::", GATEWAY_PORT))
    sock.listen(512)
    return sock


def _prepare(shim: socket.socket, base: Sequence[tuple[str, int]], *, hostname: str) -> None:
    """Everything that does not depend on the command."""
    wire.receive(shim)  # the id maps are written and the groups joined
    libc.unshare(libc.CLONE_NEWCGROUP)  # only now: its root is the group that the caller is in
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    # Capabilities over the own namespaces stay: the id left behind was not root inside. Files made from here on are the
    # agent's; an unmapped id could make none.
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    libc.sethostname(hostname)
    mounts.make_private()
    namespaces.loopback(up=True)
    with _listener() as listener:
        tree.build(ROOT, base or tree.open_base())
        wire.send(shim, {}, [listener.fileno()])


def _probe(action: Callable[[], object]) -> str:
    """The errno name of what an action fails with, empty where it succeeds."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return ""


def _open_root() -> None:
    os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _connect() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(("127.0.0.1", 1))


def apply_restrictions(restrictions: Restrictions) -> dict[str, Any]:
    """Give up capabilities, then Landlock, then seccomp, on this thread for good. Says what was seen of Landlock."""
    capabilities.drop_bounding()
    capabilities.drop_all()
    capabilities.no_new_privileges()
    version = landlock.restrict(
        landlock.Ruleset(read=restrictions.read, write=restrictions.write, ports=restrictions.ports)
    )
    # The root itself is in no rule, and port 1 neither: without Landlock one opens and the other is refused differently.
    seen = {"landlock": version, "landlock_files": _probe(_open_root), "landlock_net": _probe(_connect)}
    for program, log in filters.programs(restrictions.profile):
        seccomp.install(program, log=log)
    if restrictions.deny:
        seccomp.install(filters.denying(restrictions.deny))
    return seen


def _limits(limits: dict[str, Sequence[int]]) -> None:
    for name, wanted in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, ceiling = resource.getrlimit(number)
        soft, hard = (value if ceiling == resource.RLIM_INFINITY else min(value, ceiling) for value in wanted)
        resource.setrlimit(number, (soft, hard))


def _become(job: dict[str, Any], secrets: dict[str, str], trees: list[tuple[str, int]]) -> dict[str, Any]:
    """Finish the tree for this command and give everything up."""
    tree.attach(ROOT, trees)
    tree.put_secrets(ROOT, secrets)
    canaries = tree.place_canaries(ROOT, job["canaries"])
    tree.close_root(ROOT, tmp_writable=job["tmp_writable"])
    os.chdir(job["workdir"])
    _limits(job["limits"])
    given = job["restrictions"]
    seen = apply_restrictions(
        Restrictions(
            read=tuple(given["read"]) + tree.bait(canaries),
            write=tuple(given["write"]),
            ports=tuple(given["ports"]),
            profile=given["profile"],
        )
    )
    return {**seen, "canaries": canaries}


def _spawn(command: list[str], environment: dict[str, str], stdio: list[int]) -> int:
    """Start the command in a session of its own with the given standard descriptors and no others."""
    os.environ.clear()
    os.environ["PATH"] = environment["PATH"]  # where posix_spawnp searches
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
    # 32 and 33 are the C library's own.
    every = set(range(1, signal.NSIG)) - {int(signal.SIGKILL), int(signal.SIGSTOP), 32, 33}
    return os.posix_spawnp(
        command[0], command, environment, file_actions=actions, setsid=True, setsigdef=every, setsigmask=()
    )


def _reap(main: int) -> tuple[int, int]:
    """Reap until the command has ended; (exit status, signal)."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(main, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    while True:
        pid, status = os.wait()
        if pid == main:
            if os.WIFSIGNALED(status):
                number = os.WTERMSIG(status)
                return 128 + number, number
            return os.WEXITSTATUS(status), 0


def run(shim: socket.socket, base: Sequence[tuple[str, int]], *, hostname: str) -> NoReturn:
    """The whole life of process 1. Any failure before the command starts is told to the shim and ends the sandbox."""
    status = 70
    number = 0
    try:
        libc.prctl(_PR_SET_NAME, "clawback-init")
        _prepare(shim, base, hostname=hostname)
        message, fds = wire.receive(shim)
        job, secrets = message["job"], message["secrets"]
        stdio, detached = fds[:3], fds[3:]
        if job["rootless"]:
            trees = [(path, mounts.detached(path, flags=flags)) for path, flags in message["binds"]]
        else:
            trees = [(path, fd) for (path, _), fd in zip(message["binds"], detached, strict=True)]
        wire.send(shim, _become(job, secrets, trees))
        wire.receive(shim)  # what holds has been observed from outside: the command may start
        message.clear()
        secrets.clear()
        main = _spawn(job["command"], job["environment"], stdio)
        for fd in stdio:
            os.close(fd)
        wire.send(shim, {"main": main})
        status, number = _reap(main)
        shim.send(EXIT.pack(status & 0xFF, number), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except wire.Closed:
        status = 0
    except OSError as error:
        with contextlib.suppress(OSError):
            wire.send(shim, {"error": str(error), "errno": error.errno})
    except Exception as error:
        with contextlib.suppress(OSError):
            wire.send(shim, {"error": f"{type(error).__name__}: {error}", "errno": 0})
    finally:
        os._exit(status)
