"""Registers of a stopped thread, by machine: how to make it call, what came of it, and how it goes on afterwards.

Layouts: NT_PRSTATUS of arch/x86/include/asm/user_64.h and arch/arm64/include/uapi/asm/ptrace.h, as PTRACE_GETREGSET
gives them: 64-bit words.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass

from clawback.enforcement.kernel.syscalls import TABLES

__all__ = ["HERE", "MACHINES", "Machine"]

_ALL_ONES = 0xFFFFFFFFFFFFFFFF

# Kernel-internal codes in a stopped thread's return register: its call is to be made again (include/linux/errno.h).
_RESTART_AGAIN = frozenset({512, 513, 514})
_RESTART_BLOCK = 516


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Indices into the words of its register set.

    instruction  bytes of the instruction that calls the kernel
    sets         register values that a call needs besides, index → value
    original     where the number of the interrupted call stands; -1 where it is a set of its own (`call_set`)
    restarted    whether the kernel has gone back over the instruction already when a thread stops inside a call
    """

    name: str
    words: int
    instruction: bytes
    number: int
    arguments: tuple[int, ...]
    result: int
    counter: int
    sets: tuple[tuple[int, int], ...] = ()
    original: int = -1
    call_set: int = 0
    restarted: bool = False

    def calling(self, saved: Sequence[int], name: str, arguments: Sequence[int], at: int) -> list[int]:
        """Registers with which a thread makes this call by the instruction at address `at`."""
        words = list(saved)
        for index, value in (*self.sets, (self.number, TABLES[self.name][name]), (self.counter, at)):
            words[index] = value
        if self.original >= 0:
            words[self.original] = _ALL_ONES  # or the kernel would also restart the call it was interrupted in
        for index, value in zip(self.arguments, arguments, strict=False):
            words[index] = value & _ALL_ONES
        return words

    def returned(self, words: Sequence[int]) -> int:
        """What a call came to: negative for an errno."""
        return _signed(words[self.result])

    def resumed(self, saved: Sequence[int]) -> list[int]:
        """Registers with which a thread goes on where it was stopped: inside a call, it makes that call again.

        The kernel does this itself only on the way out of a signal, which an injected call has used up. Where it has
        gone back already (arm64), nothing is left to do, except that a sleep begins anew: its rest is not told.
        """
        words = list(saved)
        if self.restarted:
            return words
        number, code = _signed(words[self.original]), -_signed(words[self.result])
        if number >= 0 and (code in _RESTART_AGAIN or code == _RESTART_BLOCK):
            words[self.number] = TABLES[self.name]["restart_syscall"] if code == _RESTART_BLOCK else number
            words[self.counter] -= len(self.instruction)
            words[self.original] = _ALL_ONES
        return words


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_X86_64 = Machine(
    name="x86_64",
    words=27,
    instruction=b"\x0f\x05",  # syscall
    number=10,  # rax
    arguments=(14, 13, 12, 7, 9, 8),  # rdi rsi rdx r10 r8 r9
    result=10,
    counter=16,  # rip
    sets=((17, 0x33),),  # cs: 64-bit code
    original=15,  # orig_rax
)
_AARCH64 = Machine(
    name="aarch64",
    words=34,  # x0 to x30, sp, pc, pstate
    instruction=b"\x01\x00\x00\xd4",  # svc #0
    number=8,
    arguments=(0, 1, 2, 3, 4, 5),
    result=0,
    counter=32,
    call_set=0x404,  # NT_ARM_SYSTEM_CALL
    restarted=True,
)

MACHINES = {machine.name: machine for machine in (_X86_64, _AARCH64)}
"""Those that injection is written for. On aarch64 it has not run: only this layout is tested."""

HERE = MACHINES.get(platform.machine())
"""This one's; None where injection is not written for it."""
