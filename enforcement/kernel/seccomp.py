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

__all__ = ["ALLOW", "Action", "Check", "Condition", "assemble", "deny", "install"]

# linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_SET_MODE_FILTER = 1
_FLAG_LOG = 2
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_RET_KILL_PROCESS = 0x80000000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_LD, _JA, _JEQ, _JGE, _JSET, _RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
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
class Check:
    """Rules tried in turn, each with conditions that must all hold and what then happens; else `otherwise`."""

    rules: tuple[tuple[tuple[Condition, ...], int], ...]
    otherwise: int


Action = int | Check
"""A seccomp return value, or a check of arguments that ends in one."""

ALLOW: int = _RET_ALLOW


def deny(number: int = errno.EPERM) -> int:
    """The action that makes a call fail with this errno."""
    return _RET_ERRNO | number


def _condition(condition: Condition, skip: int) -> list[Instruction]:
    """Fall through when it holds; jump over `skip` instructions more when not."""
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
        (_RET, 0, 0, _RET_KILL_PROCESS),
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
