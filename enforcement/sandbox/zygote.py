"""The single-threaded process that forks shims and helpers for the core.

A threaded process must not clone namespaces; this one has one thread, few imports and no secrets, and can. It ends with
the core. Shims don't: each is a session of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from clawback.enforcement.kernel import cgroups, libc, mounts, namespaces
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.quarantine import cover, holder, inject, joined, openings, sealed, signals  # noqa: F401 - helpers find them loaded
from clawback.enforcement.sandbox import filters, shim, wire
from clawback.enforcement.sandbox.cage import Host

__all__ = ["main"]

_PR_SET_NAME = 15


def _detach(keep: int) -> None:
    """Be nobody's child but the zygote's: own session, nothing of the core's open but the one socket."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    libc.close_range(3, keep - 1)
    libc.close_range(keep + 1)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)


def _shim(host: Host, request: dict[str, Any], fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 2)  # the core's log may be a pipe that ends with it
    with socket.socket(fileno=fd) as core:
        shim.serve(host, core, uid=request["uid"], name=request["name"], spare=request["spare"])


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    if not module.startswith("clawback.enforcement."):
        raise ValueError(f"{name} is not the core's")
    function = getattr(importlib.import_module(module), attribute)
    if not callable(function):
        raise TypeError(f"{name} is not a function")
    return function  # type: ignore[no-any-return]  # getattr is untyped; called under try


def _helper(fd: int) -> None:
    """Run one function; its result or its failure is the answer."""
    with socket.socket(fileno=fd) as core:
        message, fds = wire.receive(core)
        signal.setitimer(signal.ITIMER_REAL, message["timeout"])  # unhandled, it ends this process
        try:
            arguments = dict(message["arguments"])
            if fds:
                arguments["fds"] = fds
            answer = {"result": _function(message["function"])(**arguments)}
        except OSError as error:
            answer = {"error": str(error), "errno": error.errno, "kind": type(error).__name__}
        except Exception as error:
            answer = {"error": str(error), "kind": type(error).__name__, "trace": traceback.format_exc(limit=-4)}
        wire.send(core, answer)


class _Zygote:
    def __init__(self, core: socket.socket, host: Host) -> None:
        self._core = core
        self._host = host
        self._poll = select.poll()
        self._poll.register(core, select.POLLIN)
        self._children: dict[int, tuple[int, float | None]] = {}  # pidfd → pid, deadline of a helper

    def _fork(self, request: dict[str, Any], fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 0
            try:
                _detach(fd)
                if request["op"] == "shim":
                    _shim(self._host, request, fd)
                else:
                    _helper(fd)
            except (wire.Closed, ConnectionError):
                status = 1
            except BaseException:
                traceback.print_exc()
                status = 70
            finally:
                os._exit(status)
        deadline = time.monotonic() + request["timeout"] + 1.0 if request["op"] == "run" else None
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, deadline)
        self._poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, deadline = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        if deadline is not None:
            # Unreaped, it still holds its number: what it left running in its group is certainly its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _overdue(self) -> None:
        now = time.monotonic()
        for pid, deadline in self._children.values():
            if deadline is not None and deadline < now:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)

    def serve(self) -> None:
        """Until the core goes."""
        while True:
            helpers = any(deadline is not None for _, deadline in self._children.values())
            for fd, _event in self._poll.poll(500 if helpers else None):
                if fd != self._core.fileno():
                    self._reap(fd)
                    continue
                try:
                    request, fds = wire.receive(self._core)
                except (wire.Closed, ConnectionResetError):
                    return
                for given in fds[:1]:
                    self._fork(request, given)
                for given in fds:
                    os.close(given)
            self._overdue()


def _may_mount() -> bool:
    """Seen by doing it: root in a user namespace of its own may not, in a mount namespace that is the host's."""
    try:
        os.close(mounts.detached("/dev/null", flags=mounts.MS_RDONLY))
    except PermissionError:
        return False
    return True


def main() -> NoReturn:
    """Serve on the inherited socket; arguments: its descriptor, the core's cgroup, the folder of spares."""
    libc.prctl(_PR_SET_NAME, "clawback-zygote")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's signals are the core's to handle
    core = socket.socket(fileno=int(sys.argv[1]))
    core.set_inheritable(False)
    host = Host(
        hierarchies=cgroups.discover(),
        group=sys.argv[2],
        spares=Path(sys.argv[3]),
        mounts=_may_mount(),
        namespaces=namespaces.identities(),
    )
    for base in filters.BASES:
        filters.programs(SyscallPolicy(base=base))
    sealed.sealed_program()
    gc.collect()
    gc.freeze()  # children share these pages for as long as nobody counts their references anew
    gc.disable()
    wire.send(core, {"ready": os.getpid()})
    _Zygote(core, host).serve()
    sys.exit(0)


if __name__ == "__main__":
    main()
