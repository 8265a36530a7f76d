"""The single-threaded process that forks shims and helpers for the core.

A threaded process must not clone namespaces; this one has one thread, few imports and no secrets, and can. It ends with
the core. Shims don't: each is a session of its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from clawback.enforcement.kernel import cgroups, libc, needs
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.quarantine import cover, holder, inject, joined, openings, relay, restricting, sealed, signals  # noqa: F401 - helpers find them loaded
from clawback.enforcement.sandbox import cage, filters, making, shim, tree, wire
from clawback.enforcement.sandbox.making import Host

__all__ = ["main"]

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_SECONDS = 1.0
_ENDING_SECONDS = 5


def _keep_only(*fds: int) -> None:
    """Close every descriptor from 3 on but these."""
    first = 3
    for fd in sorted(fds):
        libc.close_range(first, fd - 1)
        first = fd + 1
    libc.close_range(first)


def _detach(*keep: int) -> None:
    """Be nobody's child but the zygote's: own session, nothing of the core's open but what is kept."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _keep_only(*keep)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _shim(recipe: bytes, fd: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 2)  # the core's log may be a pipe that ends with it
    with socket.socket(fileno=fd) as core:
        shim.serve(core, recipe)


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
        self._poll = select.epoll()
        self._poll.register(core, select.EPOLLIN)
        self._children: dict[int, tuple[int, float | None]] = {}  # pidfd → pid, deadline of a helper

    def _make(self, request: dict[str, Any], fd: int) -> None:
        """A sandbox; why there is none goes to whoever waits for it."""
        order = None
        try:
            order = making.prepare(self._host, request)
            if self._host.program >= 0:
                self._follow(making.spawn(self._host, order, fd), None)
            else:
                recipe = order.recipe
                self._fork(lambda: _shim(recipe, fd), (fd, *order.fds), None)
        except OSError as error:
            if order:
                cgroups.remove_leaf(order.leaf)
            with socket.socket(fileno=os.dup(fd)) as core, contextlib.suppress(OSError):
                wire.send(core, {"error": str(error), "stage": "create", "errno": error.errno})
        finally:
            for given in order.fds if order else ():
                os.close(given)

    def _help(self, request: dict[str, Any], fd: int) -> None:
        self._fork(lambda: _helper(fd), (fd,), time.monotonic() + request["timeout"] + 1.0)

    def _fork(self, work: Callable[[], None], keep: Sequence[int], deadline: float | None) -> None:
        pid = os.fork()
        if pid == 0:
            status = 0
            try:
                _detach(*keep)
                work()
            except (wire.Closed, ConnectionError):
                status = 1
            except BaseException:
                traceback.print_exc()
                status = 70
            finally:
                os._exit(status)
        self._follow(pid, deadline)

    def _follow(self, pid: int, deadline: float | None) -> None:
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, deadline)
        self._poll.register(pidfd, select.EPOLLIN)

    def _reap(self, pidfd: int) -> None:
        pid, deadline = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        if deadline is not None:
            # Unreaped, it still holds its number: what it left running in its group is certainly its own.
            _end_group(pid)
        os.waitpid(pid, 0)

    def _adopt(self) -> None:
        """Reap what helpers and shims left behind when they were killed.

        Left to the host's first process, which in a container may reap nobody, a helper's child that had entered a
        sandbox would keep that sandbox from ever ending: the kernel waits until all in a pid namespace are reaped.
        """
        known = {pid for pid, _ in self._children.values()}
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in known:
                    break  # its descriptor says so next
                os.waitpid(found.si_pid, 0)

    def _overdue(self) -> None:
        now = time.monotonic()
        for pid, deadline in self._children.values():
            if deadline is not None and deadline < now:
                _end_group(pid)

    def _end_helpers(self) -> None:
        """Nobody waits for their answers any more, and to the next core they would be strangers in its sandboxes.

        They are reaped too, for the reason that `_adopt` has.
        """
        signal.alarm(_ENDING_SECONDS)  # unhandled, it ends this process
        for pid, deadline in self._children.values():
            if deadline is not None:
                _end_group(pid)
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-pid, 0):  # whom it leaves is ours by then, and of its group
                        pass

    def serve(self) -> None:
        """Until the core goes."""
        while True:
            helpers = any(deadline is not None for _, deadline in self._children.values())
            for fd, _event in self._poll.poll(0.5 if helpers else _LOOK_SECONDS):
                if fd != self._core.fileno():
                    self._reap(fd)
                    continue
                try:
                    request, fds = wire.receive(self._core)
                except (wire.Closed, ConnectionResetError):
                    self._end_helpers()
                    return
                for given in fds[:1]:
                    (self._make if request["op"] == "shim" else self._help)(request, given)
                for given in fds:
                    os.close(given)
            self._adopt()
            self._overdue()


def main() -> NoReturn:
    """Serve on the inherited socket; arguments: its descriptor, the core's cgroup, the compiled shim or nothing."""
    libc.prctl(_PR_SET_NAME, "clawback-zygote")
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's signals are the core's to handle
    core = socket.socket(fileno=int(sys.argv[1]))
    core.set_inheritable(False)
    if need := needs.lacking():
        wire.send(core, {"lacking": need.sentence, "fix": need.fix})
        sys.exit(1)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for each sandbox
    hierarchies = cgroups.discover()
    cgroups.step_aside(hierarchies, sys.argv[2])
    host = Host(
        hierarchies=hierarchies,
        group=sys.argv[2],
        mounts=making.may_mount(),
        program=os.open(sys.argv[3], os.O_PATH | os.O_CLOEXEC) if sys.argv[3] else -1,
    )
    cage.first_part(tree.base_paths(), groups=len(hierarchies.v1), mounted=host.mounts)
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
