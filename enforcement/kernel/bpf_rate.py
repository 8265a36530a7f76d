"""A rate for each user id, kept by eBPF programs: what exceeds it is counted in the kernel and goes no further.

A bucket is kept as the time at which it will be full again (the generic cell rate algorithm): one word, which two
processors may at worst both take a token from.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from clawback.enforcement.kernel.bpf import (
    KTIME_GET_NS,
    MAP_LOOKUP,
    MAP_UPDATE,
    R0,
    R1,
    R2,
    R3,
    R4,
    R9,
    R10,
    Code,
    Map,
)

__all__ = ["SCRATCH", "Counted", "RateByUid"]

_BUCKET = struct.Struct("=QQQQ")  # ordinary and fresh bucket, full again at (ns); passed; dropped
_CALLS = 16_384
_FRESH_NS = 10 * 1_000_000_000
_FRESH_PER_SECOND = 50
_FRESH_AT_ONCE = 1024
_MOST_CALLS = 1024  # numbers from here on are one call: Linux has no such, and an agent must not make up new ones

SCRATCH = 8 + _BUCKET.size
"""Bytes of stack that `admit` needs."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Events of one user id since the program was loaded."""

    passed: int
    dropped: int


class RateByUid:
    """`rate` a second and `burst` at once for each of `uids`; the first of each system call in ten seconds passes too,
    up to fifty such a second, so that the flood of one call does not hide another.
    """

    def __init__(self, uids: range, *, rate: float, burst: float, name: str) -> None:
        self._interval = int(1e9 / rate)
        self._ahead = int(1e9 / rate * burst)
        self._buckets = Map("hash", key=4, value=_BUCKET.size, entries=len(uids), name=name)
        self._calls = Map("lru", key=8, value=8, entries=_CALLS, name=f"{name}_calls")

    def counted(self) -> dict[int, Counted]:
        """By user id."""
        found = {}
        for key, value in self._buckets.items():
            _, _, passed, dropped = _BUCKET.unpack(value)
            found[struct.unpack("=I", key)[0]] = Counted(passed, dropped)
        return found

    def close(self) -> None:
        """Let go."""
        self._buckets.close()
        self._calls.close()

    def admit(self, code: Code, uid: int, call: int, scratch: int, *, passing: str, refused: str) -> None:
        """Instructions that go on at one label or the other. `uid` and `call` are registers of R6 to R8; R9 is spoilt.

        `scratch` is the offset from R10 of `SCRATCH` free bytes.
        """
        key, value = scratch, scratch + 8
        code.jump("<", call, _MOST_CALLS, "rate-call").set(call, _MOST_CALLS).label("rate-call")
        code.call(KTIME_GET_NS).copy(R9, R0)
        code.store(4, R10, key, uid).store(4, R10, key + 4, call).store(8, R10, value, R9)
        code.map(R1, self._calls).copy(R2, R10).do(R2, "+", key).call(MAP_LOOKUP)
        code.set(call, 8)  # from here on: which of the two buckets pays
        code.jump("==", R0, 0, "rate-fresh").load(8, R1, R0, 0)
        code.set(R2, _FRESH_NS).do_register(R2, "+", R1).jump_register("<=", R2, R9, "rate-fresh")
        code.set(call, 0).go("rate-bucket")
        code.label("rate-fresh")
        self._update(code, self._calls, key, value)
        code.label("rate-bucket").map(R1, self._buckets).copy(R2, R10).do(R2, "+", key).call(MAP_LOOKUP)
        code.jump("!=", R0, 0, "rate-there")
        code.store(8, R10, value, R9).store(8, R10, value + 8, R9)
        code.store_number(8, R10, value + 16, 1).store_number(8, R10, value + 24, 0)
        self._update(code, self._buckets, key, value)
        code.go(passing)
        code.label("rate-there").jump("==", call, 0, "rate-ordinary")
        self._spend(code, 8, int(1e9 / _FRESH_PER_SECOND), _FRESH_AT_ONCE, refused="rate-ordinary")
        code.label("rate-ordinary")
        self._spend(code, 0, self._interval, self._ahead // self._interval, refused="rate-over")
        code.label("rate-passed").set(R2, 1).add_atomic(R0, 16, R2).go(passing)
        code.label("rate-over").set(R2, 1).add_atomic(R0, 24, R2).go(refused)

    @staticmethod
    def _spend(code: Code, at: int, interval: int, burst: int, *, refused: str) -> None:
        """Take a token of the bucket at R0 + `at` and go on at `rate-passed`, or go to `refused`."""
        code.load(8, R1, R0, at).jump_register(">=", R1, R9, f"rate-owing{at}").copy(R1, R9)
        code.label(f"rate-owing{at}").copy(R2, R1).do_register(R2, "-", R9).set(R3, interval * burst)
        code.jump_register(">", R2, R3, refused).set(R3, interval).do_register(R1, "+", R3).store(8, R0, at, R1)
        if at:
            code.go("rate-passed")

    @staticmethod
    def _update(code: Code, which: Map, key: int, value: int) -> None:
        code.map(R1, which).copy(R2, R10).do(R2, "+", key).copy(R3, R10).do(R3, "+", value).set(R4, 0)
        code.call(MAP_UPDATE)
