"""System calls of agents that came back with "not permitted", with their registers and what they reached for.

An eBPF program at the kernel's raw tracepoint `sys_exit`. It sees what no audit record tells: the argument registers of
a call that the filter denied, and the refusals of Landlock, of file permissions and of a network namespace without a
route, with the path or address that was asked for. While it is attached, every system call of the host pays for it:
88 ns measured (a bare call 166 → 254 ns, Linux 6.18, x86-64); detached, nothing. It ends with its descriptors.

Paths and addresses are read from the caller's memory after the call: another thread may have changed them since.
`pt_regs` as in arch/x86/include/asm/ptrace.h.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from clawback.enforcement.kernel.bpf import (
    GET_CURRENT_COMM,
    GET_CURRENT_PID_TGID,
    GET_CURRENT_UID_GID,
    KTIME_GET_NS,
    MAP_LOOKUP,
    PROBE_READ_KERNEL,
    PROBE_READ_USER,
    PROBE_READ_USER_STR,
    R0,
    R1,
    R2,
    R3,
    R6,
    R7,
    R8,
    R9,
    R10,
    RAW_TRACEPOINT,
    RINGBUF_RESERVE,
    RINGBUF_SUBMIT,
    Code,
    Map,
    load,
    raw_tracepoint,
)
from clawback.enforcement.kernel.bpf_rate import SCRATCH, Counted, RateByUid
from clawback.enforcement.kernel.ring import Ring
from clawback.enforcement.kernel.syscalls import NUMBER

__all__ = ["REFUSALS", "CallTrace", "TracedCall"]

REFUSALS = (errno.EPERM, errno.EACCES, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
"""Not permitted, and no way there: the last is what a namespace without an address says to IPv6."""

_RING_BYTES = 1 << 20
_REGISTERS = 136  # pt_regs from r15 to ip
_NUMBER, _ADDRESS = 120, 128
_ARGUMENTS = (112, 104, 96, 56, 72, 64)  # di si dx r10 r8 r9
_TEXT = 256
_PEERS = (110, 28, 16)  # sockaddr_un, sockaddr_in6, sockaddr_in: as much as there is memory for
_RECORD = struct.Struct(f"=qQQqq6QQ16sii{_TEXT}s")
_AT = {"time": 0, "pid": 8, "uid": 16, "number": 24, "result": 32, "arguments": 40, "address": 88, "comm": 96}
_LENGTH, _KIND, _WHAT = 112, 116, 120

# Which argument says what was reached for: its place from 1, and whether it is a path or a socket address.
_IS_PEER = 16
_PLACES = {
    1: "open creat execve unlink mkdir rmdir rename link truncate mknod chdir chroot",
    2: "openat openat2 execveat unlinkat mkdirat renameat renameat2 linkat mknodat symlink",
    3: "symlinkat",
    _IS_PEER | 2: "connect bind",
    _IS_PEER | 5: "sendto",
}
_CALLS = 512
_CLOSE_NS = 20_000


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One refused call. `path` or `peer` (a raw sockaddr) is what was reached for, empty where the call names none or
    the memory was gone. `error` is an errno; `pid` the process, `address` the caller's instruction.
    """

    time_ns: int
    pid: int
    uid: int
    number: int
    error: int
    arguments: tuple[int, ...]
    address: int
    comm: bytes
    path: bytes
    peer: bytes


class CallTrace:
    """Loaded at once, attached by `attach` alone. `OSError` where the kernel refuses, or the machine is another."""

    def __init__(self, uids: range, *, rate: float = 100.0, burst: float = 300.0) -> None:
        if platform.machine() != "x86_64":
            raise OSError(errno.ENOSYS, f"not written for {platform.machine()}")
        self._link = -1
        self._ring = Ring(_RING_BYTES, "refused_calls")
        self._rate = RateByUid(uids, rate=rate, burst=burst, name="refusals")
        self._places = Map("array", key=4, value=4, entries=_CALLS, name="call_places")
        self._full = Map("array", key=4, value=8, entries=1, name="ring_full")
        for place, names in _PLACES.items():
            for name in names.split():
                self._places.put(struct.pack("=I", NUMBER[name]), struct.pack("=I", place))
        try:
            code = _program(uids, self._rate, self._ring.map, self._places, self._full)
            self._program = load(RAW_TRACEPOINT, code, name="refused_calls")
        except OSError:
            self._release()
            raise

    @property
    def attached(self) -> bool:
        """It reports, and the host pays."""
        return self._link >= 0

    def attach(self) -> None:
        """Begin; nothing where it has begun."""
        if self._link < 0:
            self._link = raw_tracepoint("sys_exit", self._program)

    def detach(self) -> None:
        """Stop; what was recorded may still be read."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1

    def fileno(self) -> int:
        """For `poll`."""
        return self._ring.fileno()

    def read(self, limit: int = 256) -> Iterator[TracedCall]:
        """What is there now, at most `limit` calls; never blocks."""
        since = None
        for record in self._ring.read(limit):
            since = since or _since()
            yield _parse(record, since)

    def counted(self) -> dict[int, Counted]:
        """Refused calls by user id, while it was attached."""
        return self._rate.counted()

    @property
    def overflows(self) -> int:
        """Calls for which the ring had no room."""
        found = self._full.get(struct.pack("=I", 0))
        return int(struct.unpack("=Q", found)[0]) if found else 0

    def close(self) -> None:
        """Stop and let go."""
        self.detach()
        os.close(self._program)
        self._release()

    def _release(self) -> None:
        for part in (self._ring, self._rate, self._places, self._full):
            part.close()


def _since() -> int:
    """What to add to the kernel's monotonic time for the time of day. Whoever reads two clocks may lose the processor
    in between, for milliseconds: the closest of a few readings is taken.
    """
    best, least = 0, 1 << 62
    for _ in range(5):
        before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after - before < least:
            best, least = now - (before + after) // 2, after - before
        if least < _CLOSE_NS:
            break
    return best


def _parse(record: bytes, since: int) -> TracedCall:
    at, ids, uid, number, result, *words, comm, length, place, what = _RECORD.unpack(record[: _RECORD.size])
    inside = what[: max(0, min(length, _TEXT))]
    return TracedCall(
        time_ns=at + since,
        pid=ids >> 32,
        uid=uid,
        number=number,
        error=-result,
        arguments=tuple(words[:6]),
        address=words[6],
        comm=comm.rstrip(b"\0"),
        path=b"" if place & _IS_PEER else inside.rstrip(b"\0"),
        peer=inside if place & _IS_PEER else b"",
    )


def _program(uids: range, rate: RateByUid, ring: Map, places: Map, full: Map) -> Code:
    """R6 the context, R7 the user id, R8 the call's number, R9 the record; on the stack: registers, then scratch."""
    registers, scratch = -_REGISTERS, -_REGISTERS - SCRATCH
    code = Code().load(8, R2, R1, 8).jump("s>", R2, -1, "out")  # all that most calls pay
    for error in REFUSALS:
        code.jump("==", R2, -error, "refused")
    code.go("out")
    code.label("refused").copy(R6, R1).call(GET_CURRENT_UID_GID).copy(R7, R0).do(R7, "<<", 32).do(R7, ">>", 32)
    code.jump("<", R7, uids.start, "out").jump(">=", R7, uids.stop, "out")
    code.copy(R1, R10).do(R1, "+", registers).set(R2, _REGISTERS).load(8, R3, R6, 0).call(PROBE_READ_KERNEL)
    code.jump("!=", R0, 0, "out").load(8, R8, R10, registers + _NUMBER)
    rate.admit(code, R7, R8, scratch, passing="write", refused="out")
    code.label("write").map(R1, ring).set(R2, _RECORD.size).set(R3, 0).call(RINGBUF_RESERVE)
    code.jump("!=", R0, 0, "reserved")
    code.store_number(4, R10, scratch, 0).map(R1, full).copy(R2, R10).do(R2, "+", scratch).call(MAP_LOOKUP)
    code.jump("==", R0, 0, "out").set(R2, 1).add_atomic(R0, 0, R2).go("out")
    code.label("reserved").copy(R9, R0)
    code.call(KTIME_GET_NS).store(8, R9, _AT["time"], R0)
    code.call(GET_CURRENT_PID_TGID).store(8, R9, _AT["pid"], R0).store(8, R9, _AT["uid"], R7)
    code.load(8, R8, R10, registers + _NUMBER).store(8, R9, _AT["number"], R8)
    code.load(8, R2, R6, 8).store(8, R9, _AT["result"], R2)
    for at, offset in enumerate(_ARGUMENTS):
        code.load(8, R2, R10, registers + offset).store(8, R9, _AT["arguments"] + 8 * at, R2)
    code.load(8, R2, R10, registers + _ADDRESS).store(8, R9, _AT["address"], R2)
    code.copy(R1, R9).do(R1, "+", _AT["comm"]).set(R2, 16).call(GET_CURRENT_COMM)
    code.store_number(4, R9, _LENGTH, 0).store_number(4, R9, _KIND, 0)
    # What was reached for.
    code.store(4, R10, scratch, R8).map(R1, places).copy(R2, R10).do(R2, "+", scratch).call(MAP_LOOKUP)
    code.jump("==", R0, 0, "submit").load(4, R7, R0, 0).jump("==", R7, 0, "submit").store(4, R9, _KIND, R7)
    code.copy(R2, R7).do(R2, "&", _IS_PEER - 1).do(R2, "-", 1).jump(">", R2, 5, "submit").do(R2, "<<", 3)
    code.copy(R1, R9).do_register(R1, "+", R2).load(8, R3, R1, _AT["arguments"])
    code.copy(R1, R9).do(R1, "+", _WHAT).jump(">=", R7, _IS_PEER, "peer")
    code.set(R2, _TEXT).call(PROBE_READ_USER_STR).store(4, R9, _LENGTH, R0).go("submit")
    code.label("peer").copy(R8, R3)
    for at, length in enumerate(_PEERS):
        code.copy(R1, R9).do(R1, "+", _WHAT).copy(R3, R8).set(R2, length).call(PROBE_READ_USER)
        code.jump("!=", R0, 0, f"peer{at}").store_number(4, R9, _LENGTH, length).go("submit").label(f"peer{at}")
    code.label("submit").copy(R1, R9).set(R2, 0).call(RINGBUF_SUBMIT)
    return code.label("out").set(R0, 0).leave()
