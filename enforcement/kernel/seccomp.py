"""Seccomp: a small assembler from "call → action" to classic BPF, and the installing of the result.

Calls that share an action are gathered into ranges and found by binary search: about nine comparisons a call instead of
hundreds, and the kernel's own cache skips the filter for calls that are always allowed.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from clawback.enforcement.kernel import libc
from clawback.enforcement.kernel.syscalls import MACHINE, NUMBER, TABLES

__all__ = [
    "ALLOW", "ESCALATE", "KILL_PROCESS", "KILL_THREAD", "LOG", "MOST_INSTRUCTIONS", "TRAP", "Action", "Check",
    "Compare", "Condition", "assemble", "deny", "install",
]  # fmt: skip

MOST_INSTRUCTIONS = 4096
"""BPF_MAXINSNS, linux/bpf_common.h: of one program."""

# linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_SET_MODE_FILTER = 1
_FLAG_LOG = 2
_RET_ERRNO = 0x00050000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_LD, _JA, _JEQ, _JGT, _JGE, _JSET, _RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
_AND = 0x54
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data; an argument is 8 bytes, low half first

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of the low half of one argument: `(value & mask) in values`, or, without values, `value & mask`."""

    argument: int
    mask: int = 0xFFFFFFFF
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Compare:
    """A test of a whole argument, unsigned: `eq ne lt le ge gt` a value, or `masked_eq`: `(it & mask) == value`."""

    argument: int
    operator: str
    value: int
    mask: int = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Check:
    """Rules tried in turn, each with conditions that must all hold and what then happens; else `otherwise`."""

    rules: tuple[tuple[tuple[Condition | Compare, ...], int], ...]
    otherwise: int


Action = int | Check
"""A seccomp return value, or a check of arguments that ends in one."""

ALLOW: int = 0x7FFF0000
LOG: int = 0x7FFC0000
ESCALATE: int = 0x7FC00000
"""User notification: with nobody listening the call fails with ENOSYS."""
TRAP: int = 0x00030000
KILL_THREAD: int = 0
KILL_PROCESS: int = 0x80000000


def deny(number: int = errno.EPERM) -> int:
    """The action that makes a call fail with this errno."""
    return _RET_ERRNO | number


def _compare(test: Compare, skip: int) -> list[Instruction]:
    """Fall through when it holds; jump over `skip` instructions more when not. The high half decides first."""
    high, low = test.value >> 32, test.value & 0xFFFFFFFF
    load_high, load_low = ((_LD, 0, 0, _ARGS + 8 * test.argument + offset) for offset in (4, 0))
    if test.operator == "masked_eq":
        return [
            load_high, (_AND, 0, 0, test.mask >> 32), (_JEQ, 0, skip + 3, high),
            load_low, (_AND, 0, 0, test.mask & 0xFFFFFFFF), (_JEQ, 0, skip, low),
        ]  # fmt: skip
    if test.operator == "eq":
        return [load_high, (_JEQ, 0, skip + 2, high), load_low, (_JEQ, 0, skip, low)]
    if test.operator == "ne":
        return [load_high, (_JEQ, 0, 2, high), load_low, (_JEQ, skip, 0, low)]
    above, least = test.operator in ("gt", "ge"), test.operator in ("ge", "lt")
    undecided = (_JEQ, 0, skip + 2, high)
    last = (_JGE if least else _JGT, 0 if above else skip, skip if above else 0, low)
    first = (_JGT, 3, 0, high) if above else (_JGE, 0, 3, high)
    return [load_high, first, undecided, load_low, last]


def _condition(condition: Condition | Compare, skip: int) -> list[Instruction]:
    """Fall through when it holds; jump over `skip` instructions more when not."""
    if isinstance(condition, Compare):
        return _compare(condition, skip)
    code: list[Instruction] = [(_LD, 0, 0, _ARGS + 8 * condition.argument)]
    if not condition.values:
        return [*code, (_JSET, 0, skip, condition.mask)]
    if condition.mask != 0xFFFFFFFF:
        code.append((_AND, 0, 0, condition.mask))
    count = len(condition.values)
    for index, value in enumerate(condition.values):
        last = index == count - 1
        code.append((_JEQ, count - 1 - index, skip if last else 0, value))
    return code


def _check(action: Action) -> list[Instruction]:
    if isinstance(action, int):
        return [(_RET, 0, 0, action)]
    code: list[Instruction] = []
    for conditions, result in action.rules:
        body: list[Instruction] = [(_RET, 0, 0, result)]
        for condition in reversed(conditions):
            body = _condition(condition, len(body)) + body
        code += body
    return [*code, (_RET, 0, 0, action.otherwise)]


def _search(ranges: list[tuple[int, Action]]) -> list[Instruction]:
    """A search tree over ranges given by their first numbers, the accumulator holding the call's."""
    if len(ranges) == 1:
        return _check(ranges[0][1])
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle]), _search(ranges[middle:])
    pivot = ranges[middle][0]
    if len(left) <= 255:
        return [(_JGE, len(left), 0, pivot), *left, *right]
    return [(_JGE, 0, 1, pivot), (_JA, 0, 0, len(left)), *left, *right]


def assemble(actions: Mapping[str, Action], otherwise: Action, *, machine: str = MACHINE) -> bytes:
    """The filter program. Names that the machine lacks are passed over.

    A call by another architecture's entry (32-bit on a 64-bit kernel) kills the process; x32 numbers fail with EPERM.
    """
    numbers = TABLES[machine]
    by_number = {numbers[name]: action for name, action in actions.items() if name in numbers}
    ranges: list[tuple[int, Action]] = []
    end = max(by_number, default=0) + 1
    for number in range(end):
        action = by_number.get(number, otherwise)
        if not ranges or ranges[-1][1] != action:
            ranges.append((number, action))
    if ranges[-1][1] != otherwise:
        ranges.append((end, otherwise))
    if machine == "x86_64":
        ranges.append((_X32_BIT, deny()))
    head: list[Instruction] = [
        (_LD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        (_RET, 0, 0, KILL_PROCESS),
        (_LD, 0, 0, _NR),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in [*head, *_search(ranges)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(program: bytes, *, log: bool = True) -> None:
    """Put the filter on this thread and all it starts, for good; needs no_new_privs.

    With `log`, whatever it refuses is reported to audit.
    """
    libc.syscall(
        NUMBER["seccomp"],
        _SET_MODE_FILTER,
        _FLAG_LOG if log else 0,
        ctypes.byref(_Program(len(program) // 8, program)),
    )
