"""Seccomp's classic BPF interpreted, the kernel's choice among several filters, and what a whole policy comes to."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest

from clawback.enforcement.kernel.syscalls import TABLES
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.sandbox.filters import programs

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), *, arch: int) -> int:
    """What a program says to one `struct seccomp_data`."""
    words = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *words)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15:
                at += yes if accumulator == k else no
            case 0x25:
                at += yes if accumulator > k else no
            case 0x35:
                at += yes if accumulator >= k else no
            case 0x45:
                at += yes if accumulator & k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(hex(operation))


def together(results: Iterable[int]) -> int:
    """Of several filters' answers, the newest first, the one that counts: the strictest as the kernel compares."""
    return min(results, key=lambda result: (result & 0xFFFF0000) - (0x100000000 if result & 0x80000000 else 0))


class Bpf:
    """For tests to use."""

    ARCH = ARCH
    run = staticmethod(run)
    together = staticmethod(together)

    @staticmethod
    def answer(policy: SyscallPolicy, name: str, arguments: tuple[int, ...] = (), machine: str = "x86_64") -> int:
        """The kernel's, under all of a policy's filters."""
        number, arch = TABLES[machine][name], ARCH[machine]
        return together(run(p.code, number, arguments, arch=arch) for p in reversed(programs(policy, machine=machine)))


@pytest.fixture(scope="session")
def bpf() -> type[Bpf]:
    return Bpf
