"""Forks, execs and exits of the whole host, as the kernel's process connector reports them.

Needs the reader in the first user, pid and network namespaces: elsewhere the kernel says nothing, not even no. Before
Linux 6.6 it needs CAP_NET_ADMIN too. Formats: include/uapi/linux/{connector,cn_proc}.h.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["ProcessEvent", "ProcessEvents", "What"]

NETLINK_CONNECTOR = 11
CN_IDX_PROC = 1
CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1

_SO_RCVBUFFORCE = 33
_ANSWER_SECONDS = 0.2
_NLMSG_DONE = 3
_NL = struct.Struct("=IHHII")
_CN = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_FOUR = struct.Struct("=IIII")
_TWO = struct.Struct("=II")
_EVENT_ERROR = struct.Struct("=I")


class What(IntEnum):
    """Kinds of event, as far as they are read."""

    FORK = 0x00000001
    EXEC = 0x00000002
    EXIT = 0x80000000


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """One event of a process (threads' own forks and exits are left out). `exit_status` is as `wait` gives it."""

    what: What
    pid: int
    parent: int = 0
    exit_status: int = 0

    @property
    def exit_code(self) -> int:
        """The exit code, or 128 plus the signal's number."""
        signal = self.exit_status & 0x7F
        return 128 + signal if signal else (self.exit_status >> 8) & 0xFF


class ProcessEvents:
    """The connector, opened and heard to listen. `PermissionError` where the kernel would report nothing.

    `overflows` counts how often the kernel found the receive buffer full.
    """

    def __init__(self, *, buffer: int = 8 << 20) -> None:
        self.overflows = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR)
        try:
            self._room(buffer)
            self._socket.bind((0, 1 << (CN_IDX_PROC - 1)))
            self._socket.setblocking(False)
            self._listen()
        except OSError:
            self._socket.close()
            raise

    def _room(self, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:  # then as much as net.core.rmem_max allows; what does not fit is counted
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def _listen(self) -> None:
        """Ask, and wait for the answer: where it may not be asked the kernel drops the question without a word."""
        asked = random.getrandbits(30)  # all listeners get all answers: this is how ours is known
        operation = struct.pack("=I", PROC_CN_MCAST_LISTEN)
        message = _CN.pack(CN_IDX_PROC, CN_VAL_PROC, 0, asked, len(operation), 0) + operation
        self._socket.send(_NL.pack(_NL.size + len(message), _NLMSG_DONE, 0, 0, os.getpid()) + message)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1e3):
            data, sender = self._socket.recvfrom(8192)
            if sender[0] == 0 and _CN.unpack_from(data, _NL.size)[3] == asked + 1:
                error = _EVENT_ERROR.unpack_from(data, _NL.size + _CN.size + _EVENT.size)[0]
                if error:
                    raise OSError(error, os.strerror(error))
                return
        raise PermissionError(errno.EPERM, "the kernel reports processes in the first namespaces alone")

    def fileno(self) -> int:
        """For `poll`."""
        return self._socket.fileno()

    def read(self, limit: int = 256) -> Iterator[ProcessEvent]:
        """What is there now, at most `limit` datagrams; never blocks."""
        for _ in range(limit):
            try:
                data, sender = self._socket.recvfrom(8192)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self.overflows += 1
                    continue
                raise
            if sender[0] == 0 and (event := parse(data)) is not None:  # port 0 is the kernel
                yield event

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def parse(data: bytes) -> ProcessEvent | None:
    """Read one datagram; None for what is not an event of a whole process."""
    at = _NL.size + _CN.size
    if len(data) < at + _EVENT.size + _TWO.size:
        return None
    index, value = _CN.unpack_from(data, _NL.size)[:2]
    if (index, value) != (CN_IDX_PROC, CN_VAL_PROC):
        return None
    what = _EVENT.unpack_from(data, at)[0]
    at += _EVENT.size
    if what == What.EXEC:
        _thread, pid = _TWO.unpack_from(data, at)
        return ProcessEvent(What.EXEC, pid)
    if len(data) < at + _FOUR.size:
        return None
    first, second, third, fourth = _FOUR.unpack_from(data, at)
    if what == What.FORK and third == fourth:
        return ProcessEvent(What.FORK, fourth, parent=second)
    if what == What.EXIT and first == second:
        return ProcessEvent(What.EXIT, second, exit_status=third)
    return None
