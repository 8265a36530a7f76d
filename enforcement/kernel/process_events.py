"""Forks, execs and exits of the whole host, as the kernel's process connector reports them.

Needs CAP_NET_ADMIN in the first user namespace, and the reader in the first pid and network namespaces: elsewhere the
kernel says nothing. Formats: include/uapi/linux/{connector,cn_proc}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["ProcessEvent", "ProcessEvents", "What"]

NETLINK_CONNECTOR = 11
CN_IDX_PROC = 1
CN_VAL_PROC = 1
PROC_CN_MCAST_LISTEN = 1

_SO_RCVBUFFORCE = 33
_NLMSG_DONE = 3
_NL = struct.Struct("=IHHII")
_CN = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_FOUR = struct.Struct("=IIII")
_TWO = struct.Struct("=II")


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
    """The connector, opened and listening. `PermissionError` without the capability.

    `overflows` counts how often the kernel found the receive buffer full.
    """

    def __init__(self, *, buffer: int = 8 << 20) -> None:
        self.overflows = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
            self._socket.bind((0, 1 << (CN_IDX_PROC - 1)))
            operation = struct.pack("=I", PROC_CN_MCAST_LISTEN)
            message = _CN.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(operation), 0) + operation
            self._socket.send(_NL.pack(_NL.size + len(message), _NLMSG_DONE, 0, 0, os.getpid()) + message)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

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
