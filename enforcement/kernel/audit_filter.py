"""Which audit records reach our socket, decided in the kernel: the flood of one agent leaves room for all the others.

A denial passes if it is the first of its (user id, system call) in ten seconds, or if its user id has some of its
`rate` a second left; it is counted in either case. What does not pass takes no room in the socket's buffer, wakes
nobody, and is known by number (`dropped`). Denials of user ids outside the agents' range are not ours and never pass.

Relies on the form that audit_log_task() and audit_seccomp() of kernel/auditsc.c have given these records since Linux
3.5: `audit(S.MS:N): auid=… uid=… gid=…` in front, ` sig=… arch=… syscall=… compat=… ip=… code=…` at the end. An agent
chooses text in between only, and none of it with a space. A record of another form passes.
"""

from __future__ import annotations

import os
import socket

from clawback.enforcement.kernel.bpf import (
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R10,
    SKB_LOAD_BYTES,
    SOCKET_FILTER,
    Code,
    load,
)
from clawback.enforcement.kernel.bpf_rate import SCRATCH, Counted, RateByUid

__all__ = ["AuditFilter"]

_SO_ATTACH_BPF = 50
_SECCOMP = 1326
_HEADER = 16
_FRONT = 96  # holds `audit(…): auid=… uid=… `, which is at most 76 characters
_BACK = 112  # holds ` syscall=… compat=… ip=… code=…`, which is at most 80

_BEFORE_UID = int.from_bytes(b" uid=")
_BEFORE_CALL = int.from_bytes(b"call=")
_FIVE_BYTES = 40


class AuditFilter:
    """A filter with its counters. `OSError` where the kernel takes no such program."""

    def __init__(self, types: frozenset[int], uids: range, *, rate: float = 200.0, burst: float = 1000.0) -> None:
        self._rate = RateByUid(uids, rate=rate, burst=burst, name="denials")
        try:
            self._program = load(SOCKET_FILTER, _program(types, uids, self._rate), name="audit_filter")
        except OSError:
            self._rate.close()
            raise

    def attach(self, link: socket.socket) -> None:
        """Put it before this socket's buffer."""
        link.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, self._program)

    def counted(self) -> dict[int, Counted]:
        """Denials by user id."""
        return self._rate.counted()

    def close(self) -> None:
        """Let go; the socket keeps the program until it is closed."""
        os.close(self._program)
        self._rate.close()


def _program(types: frozenset[int], uids: range, rate: RateByUid) -> Code:
    """R6 the packet, R7 the user id, R8 the call's number; the text is on the stack."""
    text = -_BACK
    code = Code().copy(R6, R1)
    # Which kind of record. The header is in the machine's own byte order, unlike what the socket filter's loads expect.
    code.set(R2, 4)
    _take(code, 2, text)
    code.load(2, R2, R10, text).jump("==", R2, _SECCOMP, "denial")
    for kind in sorted(types - {_SECCOMP}):
        code.jump("==", R2, kind, "pass")
    code.go("drop").label("denial").set(R2, _HEADER)
    _take(code, _FRONT, text)
    _number(code, R7, text, _FRONT, _BEFORE_UID, "uid")
    code.jump("<", R7, uids.start, "drop").jump(">=", R7, uids.stop, "drop")
    code.load(4, R2, R6, 0).do(R2, "-", _BACK).jump("s<", R2, _HEADER, "pass")
    _take(code, _BACK, text)
    _number(code, R8, text, _BACK, _BEFORE_CALL, "call")
    rate.admit(code, R7, R8, text - SCRATCH, passing="pass", refused="drop")
    code.label("drop").set(R0, 0).leave()
    return code.label("pass").set(R0, 0x7FFFFFFF).leave()


def _take(code: Code, length: int, text: int) -> None:
    """Copy the part of the packet at R2 to the stack; the record passes where it has no such part."""
    code.copy(R1, R6).copy(R3, R10).do(R3, "+", text).set(R4, length).call(SKB_LOAD_BYTES).jump("!=", R0, 0, "pass")


def _number(code: Code, target: int, text: int, length: int, before: int, name: str) -> None:
    """The decimal number that follows five certain bytes; the record passes where there is none. Unrolled: the checker
    follows every path, so that each byte costs three instructions and no path is walked twice.
    """
    code.set(R3, before).set(R1, 0).set(R4, (1 << _FIVE_BYTES) - 1)
    for at in range(length - 1):
        code.do(R1, "<<", 8).load(1, R2, R10, text + at).do_register(R1, "|", R2).do_register(R1, "&", R4)
        code.jump_register("==", R1, R3, f"{name}{at}")
    code.go("pass")
    for at in range(length - 1):
        # Falls through from one digit to the next; each landing begins the number at its own place.
        code.label(f"{name}{at}").set(target, 0).go(f"{name}-digit{at + 1}")
    for at in range(1, length):
        code.label(f"{name}-digit{at}").load(1, R2, R10, text + at).do(R2, "-", ord("0"))
        code.jump(">", R2, 9, f"{name}-end").do(target, "*", 10).do_register(target, "+", R2)
    code.label(f"{name}-end")
