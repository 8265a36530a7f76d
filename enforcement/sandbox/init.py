"""Process 1 of a sandbox: builds the tree, gives up every right, starts the command, reaps, ends with it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from clawback.enforcement.kernel import capabilities, landlock, libc, mounts, namespaces, notify, seccomp
from clawback.enforcement.sandbox import filters, tree, wire
from clawback.enforcement.sandbox.job import INSIDE_ID, Restrictions
from clawback.enforcement.sandbox.record import GATEWAY_PORT

__all__ = ["EXIT", "Prepare", "apply_restrictions", "run"]

ROOT = "/sys"
"""Where the new root is put together: a folder that every host has and that nobody wants to see inside."""

EXIT = struct.Struct("BB")
"""The one thing the init says at the end: exit status and signal. Fixed size, for an agent may have taken it over."""

_PR_SET_NAME = 15
# Python and the zygote ignore these, and what is ignored stays ignored across an exec.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP)
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """What the init is born with: `base`, detached mounts of the system (none: it opens them itself, having no root
    outside), and `groups`, open `tasks` files of the v1 groups to join.
    """

    base: Sequence[tuple[str, int]] = ()
    groups: Sequence[int] = ()

    @property
    def fds(self) -> list[int]:
        """All descriptors in it."""
        return [*(fd for _, fd in self.base), *self.groups]


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


@dataclass(slots=True)
class _Prepared:
    """What stands ready before the command is known. `root` is the new tree's prefix: empty once it is the root."""

    root: str
    ruleset: landlock.Ruleset


def _prepare(shim: socket.socket, host: Prepare) -> _Prepared:
    """Everything that does not depend on the command."""
    for fd in host.groups:
        os.write(fd, b"0")  # 0 is the writer itself; a thread that moves itself waits for no grace period
        os.close(fd)
    wire.receive(shim)  # the id maps are written
    libc.unshare(libc.CLONE_NEWCGROUP)  # only now: its root is the group that the caller is in
    os.setresgid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    # Capabilities over the own namespaces stay: the id left behind was not root inside. Files made from here on are the
    # agent's; an unmapped id could make none.
    os.setresuid(INSIDE_ID, INSIDE_ID, INSIDE_ID)
    capabilities.drop_bounding()
    libc.sethostname("sandbox")
    mounts.make_private()
    namespaces.loopback(up=True)
    with _listener() as listener:
        tree.build(ROOT, host.base or tree.open_base())
        root = ROOT
        if host.base:
            # The shim opens what else is shown. Without root it cannot, and the host's tree stays until the command.
            mounts.change_root(ROOT)
            root = ""
        ruleset = landlock.Ruleset()
        ruleset.allow(read=(root + path for path in tree.READABLE), write=[f"{root}/dev"])
        wire.send(shim, {}, [listener.fileno()])
    return _Prepared(root, ruleset)


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


def _unheard(program: filters.Program) -> None:
    """Nobody listens: what escalates fails with ENOSYS."""
    seccomp.install(program.code, log=program.log)


def apply_restrictions(
    restrictions: Restrictions,
    ruleset: landlock.Ruleset | None = None,
    *,
    escalate: Callable[[filters.Program], None] = _unheard,
) -> dict[str, Any]:
    """Give up the capabilities held, then Landlock, then seccomp, on this thread for good.

    The bounding set is gone before. `ruleset` has what every sandbox may read already. `escalate` puts the program that
    escalates in force, if there is one. Says what was seen of Landlock.
    """
    if ruleset is None:
        ruleset = landlock.Ruleset()
        ruleset.allow(read=tree.READABLE, write=["/dev"])
    capabilities.drop_all()
    capabilities.no_new_privileges()
    ruleset.allow(read=restrictions.read, write=restrictions.write, ports=restrictions.ports)
    ruleset.enforce()
    # The root itself is in no rule, and port 1 neither: without Landlock one opens and one is refused otherwise.
    seen = {"landlock": ruleset.version, "landlock_files": _probe(_open_root), "landlock_net": _probe(_connect)}
    for program in filters.programs(restrictions.syscalls):
        if program.notify:
            escalate(program)
        else:
            seccomp.install(program.code, log=program.log)
    if restrictions.deny:
        seccomp.install(filters.denying(restrictions.deny))
    return seen


def _limits(limits: dict[str, Sequence[int]]) -> None:
    for name, wanted in limits.items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, ceiling = resource.getrlimit(number)
        soft, hard = (value if ceiling == resource.RLIM_INFINITY else min(value, ceiling) for value in wanted)
        resource.setrlimit(number, (soft, hard))


def _become(
    prepared: _Prepared, job: dict[str, Any], secrets: dict[str, str], trees: list[tuple[str, int]]
) -> tuple[dict[str, Any], list[int]]:
    """Finish the tree for this command and give everything up: the report, and the filter's listener if it has one."""
    tree.attach(prepared.root, trees)
    tree.put_secrets(prepared.root, secrets)
    canaries = tree.place_canaries(prepared.root, job["canaries"])
    tree.close(prepared.root, tmp_writable=job["tmp_writable"])
    if prepared.root:
        mounts.change_root(prepared.root)
    os.chdir(job["workdir"])
    _limits(job["limits"])
    restrictions = _restrictions(job["restrictions"], canaries)
    listeners: list[int] = []
    seen = apply_restrictions(
        restrictions,
        prepared.ruleset,
        escalate=lambda program: listeners.append(notify.install(program.code, log=program.log)),
    )
    return {**seen, "canaries": canaries}, listeners


def _restrictions(given: dict[str, Any], canaries: Sequence[str]) -> Restrictions:
    restrictions = Restrictions.from_json(given)
    return replace(restrictions, read=restrictions.read + tree.bait(canaries))


def _spawn(command: list[str], environment: dict[str, str], stdio: list[int]) -> int:
    """Start the command in a session of its own with the given standard descriptors and no others."""
    os.environ.clear()
    os.environ["PATH"] = environment["PATH"]  # where posix_spawnp searches
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
    return os.posix_spawnp(
        command[0], command, environment, file_actions=actions, setsid=True, setsigdef=_IGNORED, setsigmask=()
    )


def _rehearse(shim: socket.socket, job: dict[str, Any], stdio: list[int]) -> None:
    """Go once through what a launch will do, to no effect."""
    nowhere = "/nonexistent"
    restrictions = _restrictions(job["restrictions"], ())
    filters.programs(restrictions.syscalls)
    tree.place_canaries("/", job["canaries"])
    os.chdir(job["workdir"])
    _limits(job["limits"])
    ruleset = landlock.Ruleset()
    ruleset.allow(read=(nowhere,), ports=(GATEWAY_PORT,))
    ruleset.discard()
    for attempt in (
        _open_root,
        _connect,
        lambda: mounts.remount_read_only(nowhere),
        lambda: seccomp.install(b""),
        lambda: _spawn([nowhere], {"PATH": nowhere}, stdio),
        os.wait,
    ):
        _probe(attempt)
    EXIT.pack(*_outcome(0))
    for fd in stdio:
        os.close(fd)
    wire.send(shim, {"landlock": ruleset.version, "landlock_files": "", "landlock_net": "", "canaries": []})


def _outcome(status: int) -> tuple[int, int]:
    """(exit status, signal) by a wait status."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), os.WTERMSIG(status)
    return os.WEXITSTATUS(status), 0


def _reap(main: int) -> tuple[int, int]:
    """Reap until the command has ended; (exit status, signal)."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(main, number)

    for forwarded in _FORWARDED:
        signal.signal(forwarded, forward)
    while True:
        pid, status = os.wait()
        if pid == main:
            return _outcome(status)


def run(shim: socket.socket, host: Prepare) -> NoReturn:
    """The whole life of process 1. Any failure before the command starts is told to the shim and ends the sandbox."""
    status = 70
    try:
        libc.prctl(_PR_SET_NAME, "clawback-init")
        prepared = _prepare(shim, host)
        message, fds = wire.receive(shim)
        if not message["job"]["command"]:
            _rehearse(shim, message["job"], fds)
            message, fds = wire.receive(shim)
        job, secrets = message["job"], message["secrets"]
        stdio, detached = fds[:3], fds[3:]
        if prepared.root:
            trees = [(path, mounts.detached(path, flags=flags)) for path, flags in message["binds"]]
        else:
            trees = [(path, fd) for (path, _), fd in zip(message["binds"], detached, strict=True)]
        report, listeners = _become(prepared, job, secrets, trees)
        wire.send(shim, report, listeners)
        for fd in listeners:
            os.close(fd)  # the shim alone keeps it: whoever takes this process over finds no listener in it
        wire.receive(shim)  # what holds has been observed from outside: the command may start
        main = _spawn(job["command"], job["environment"], stdio)
        wire.send(shim, {"main": main})
        message.clear()
        secrets.clear()
        for fd in stdio:
            os.close(fd)
        status, by_signal = _reap(main)
        shim.sendmsg([EXIT.pack(status & 0xFF, by_signal)], [], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
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
