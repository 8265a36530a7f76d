"""Sockets opened inside an agent's network namespace and used from outside it: a socket stays where it was made."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from clawback.enforcement.kernel.libc import CLONE_NEWNET, setns
from clawback.enforcement.kernel.netlink import NETLINK_ROUTE, NETLINK_SOCK_DIAG
from clawback.enforcement.quarantine import tree
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["DIAG", "ROUTE", "TCP4", "TCP6", "opened"]

Kind = tuple[int, int, int]

ROUTE: Kind = (socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
DIAG: Kind = (socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
TCP4: Kind = (socket.AF_INET, socket.SOCK_STREAM, 0)
TCP6: Kind = (socket.AF_INET6, socket.SOCK_STREAM, 0)


@contextmanager
def opened(box: Sandbox, kinds: Sequence[Kind]) -> Iterator[list[socket.socket]]:
    """Sockets of these kinds (family, type, protocol) in the sandbox's network namespace, closed at the end.

    `ProcessLookupError` where the sandbox has ended; `PermissionError` without CAP_SYS_ADMIN over the namespace.
    """
    made: list[socket.socket] = []
    errors: list[OSError] = []
    try:
        with tree.process_folder(box) as folder:
            try:
                namespace = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            except FileNotFoundError:  # it is just ending, and has left its namespaces already
                raise ProcessLookupError(errno.ESRCH, f"process {box.pid} has ended") from None
            try:
                done = _thread.allocate_lock()
                done.acquire()
                # The namespace is the thread's: even one that could not go back takes it along when it ends. A bare
                # thread, because the waiting that `threading` does at a start costs more than all of the rest.
                _thread.start_new_thread(_open, (namespace, kinds, made, errors, done))
                done.acquire()
            finally:
                os.close(namespace)
        if errors:
            raise errors[0]
        yield made
    finally:
        for one in made:
            one.close()


def _open(
    namespace: int,
    kinds: Sequence[Kind],
    made: list[socket.socket],
    errors: list[OSError],
    done: _thread.LockType,
) -> None:
    try:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(namespace, CLONE_NEWNET)
            try:
                made.extend(socket.socket(*kind) for kind in kinds)
            finally:
                with contextlib.suppress(PermissionError):  # having joined the agent's user namespace, it has to stay
                    setns(home, CLONE_NEWNET)
        finally:
            os.close(home)
    except OSError as error:
        errors.append(error)
    finally:
        done.release()
