"""The kernel's audit records, read from the multicast group: no audit daemon is needed and none is disturbed.

Seccomp denials (type 1326) come whether auditing is on or off. Landlock's (1423, with 1424 naming the domain) come
only where auditing was on before the task was forked; `enable` switches it on for the host. Reading needs
CAP_AUDIT_READ in the first user namespace, `enable` and `status` CAP_AUDIT_CONTROL.

Formats: include/uapi/linux/audit.h; seccomp's record is written by audit_seccomp() in kernel/auditsc.c, Landlock's by
security/landlock/audit.c. Text that a task chose (comm, exe, path) stands in quotes, or as hex digits where it holds a
quote, a space or a control character: it cannot forge a field.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from clawback.enforcement.kernel.audit_filter import AuditFilter

__all__ = ["AuditReader", "AuditRecord", "enable", "parse", "set_wait", "status"]

NETLINK_AUDIT = 9
READLOG_GROUP = 1
AUDIT_GET = 1000
AUDIT_SET = 1001
SYSCALL = 1300
END_OF_EVENT = 1320
SECCOMP = 1326
LANDLOCK_ACCESS = 1423
LANDLOCK_DOMAIN = 1424

_SO_RCVBUFFORCE = 33
_NLM_REQUEST_ACK = 0x1 | 0x4
_NLMSG_ERROR = 2
_STATUS_ENABLED = 0x1
_HEADER = struct.Struct("=IHHII")
_STATUS_WAIT = 0x20
# mask enabled failure pid rate_limit backlog_limit lost backlog feature_bitmap backlog_wait_time
_STATUS = struct.Struct("=10I")
_PREFIX = re.compile(r"audit\((\d+)\.(\d+):(\d+)\): ?")
_FIELD = re.compile(r'([a-z_][a-z0-9_-]*)=("[^"]*"|\S+)')
_HEX = re.compile(r"(?:[0-9A-F]{2})+\Z")
_ADDRESS = re.compile(r"0x[0-9a-f]{1,16}\Z")
_UNTRUSTED = frozenset({"comm", "exe", "path", "ocomm", "name"})


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One record. `time_ns` is the kernel's, exact to a millisecond; records of one event share `serial`."""

    type: int
    time_ns: int
    serial: int
    fields: dict[str, str]

    def number(self, name: str, default: int = -1) -> int:
        """A decimal field, or `default` where it is absent or no number."""
        text = self.fields.get(name, "")
        return int(text) if text.isascii() and text.lstrip("-").isdigit() and len(text) < 20 else default

    @property
    def address(self) -> int:
        """The caller's instruction (`ip`), 0 where the record has none."""
        text = self.fields.get("ip", "")
        return int(text, 16) if _ADDRESS.match(text) else 0


def parse(kind: int, payload: bytes) -> AuditRecord | None:
    """Read one record's text; None where it has not the form `audit(SECONDS.MILLIS:SERIAL): key=value …`."""
    text = payload.rstrip(b"\0\n").decode("utf-8", "backslashreplace")
    match = _PREFIX.match(text)
    if match is None:
        return None
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(text[match.end() :]):
        fields.setdefault(name, _plain(name, value))
    seconds, millis, serial = (int(part) for part in match.groups())
    return AuditRecord(kind, seconds * 1_000_000_000 + millis * 1_000_000, serial, fields)


def _plain(name: str, value: str) -> str:
    if value.startswith('"'):
        return value[1:-1]
    if name in _UNTRUSTED and _HEX.match(value):
        return bytes.fromhex(value).decode("utf-8", "backslashreplace")
    return value


class AuditReader:
    """The multicast group, opened. `PermissionError` without the capability, `OSError` without audit in the kernel.

    `gate` decides in the kernel which records reach this socket. `overflows` counts how often the kernel found the
    receive buffer full (some records were lost each time).
    """

    def __init__(self, *, types: frozenset[int], gate: AuditFilter | None = None, buffer: int = 16 << 20) -> None:
        self._types = types
        self.overflows = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_AUDIT)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
            if gate is not None:
                gate.attach(self._socket)  # before the first record can come
            self._socket.bind((0, 1 << (READLOG_GROUP - 1)))
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For `poll`."""
        return self._socket.fileno()

    def read(self, limit: int = 256) -> Iterator[AuditRecord]:
        """What is there now, at most `limit` datagrams; never blocks."""
        for _ in range(limit):
            try:
                data, sender = self._socket.recvfrom(16384)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # the buffer was full; what follows is good again
                    self.overflows += 1
                    continue
                raise
            if sender[0] != 0:
                continue  # port 0 is the kernel; anything else is a process that may invent records
            if len(data) >= _HEADER.size:
                kind = _HEADER.unpack_from(data)[1]
                # The audit subsystem counts the header in nlmsg_len or not by version: the datagram's own end is used.
                if kind in self._types and (record := parse(kind, data[_HEADER.size :])) is not None:
                    yield record

    def close(self) -> None:
        """Leave the group."""
        self._socket.close()


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """Whether the host's audit is on, and how many records the kernel has lost since boot; whether a daemon takes them,
    and for how many jiffies a task waits where the queue is full.
    """

    enabled: bool
    lost: int
    daemon: bool
    wait: int


def status() -> AuditStatus:
    """Ask the kernel. `OSError` where it does not say."""
    payload = _request(AUDIT_GET, b"")
    fields = _STATUS.unpack_from(payload.ljust(_STATUS.size, b"\0"))
    return AuditStatus(enabled=fields[1] != 0, lost=fields[6], daemon=fields[3] != 0, wait=fields[9])


def enable() -> None:
    """Switch the host's audit on. From then on every new task pays some 80 ns a system call until the host restarts."""
    _request(AUDIT_SET, _STATUS.pack(_STATUS_ENABLED, 1, 0, 0, 0, 0, 0, 0, 0, 0))


def set_wait(jiffies: int) -> None:
    """How long a task waits, uninterruptibly, for room in the queue: the whole host's `backlog_wait_time`."""
    _request(AUDIT_SET, _STATUS.pack(_STATUS_WAIT, 0, 0, 0, 0, 0, 0, 0, 0, jiffies))


def _request(kind: int, payload: bytes) -> bytes:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_AUDIT) as link:
        link.bind((0, 0))
        link.sendto(_HEADER.pack(_HEADER.size + len(payload), kind, _NLM_REQUEST_ACK, 1, 0) + payload, (0, 0))
        while select.select([link], [], [], 1.0)[0]:
            data = link.recv(8192)
            got = _HEADER.unpack_from(data)[1]
            if got == kind:
                return data[_HEADER.size :]
            if got == _NLMSG_ERROR:  # code 0 is the acknowledgement; AUDIT_GET's answer may come after it
                code = struct.unpack_from("=i", data, _HEADER.size)[0]
                if code:
                    raise OSError(-code, os.strerror(-code))
                if kind != AUDIT_GET:
                    return b""
        raise TimeoutError("the kernel's audit did not answer in a second")
