"""What a policy says about system calls: a floor that is always there, and rules that can only narrow it."""

from __future__ import annotations

import errno
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["ArgumentTest", "CallAction", "CallRule", "SyscallPolicy"]


class CallAction(StrEnum):
    """What happens to a call, strictest first; where several apply, the strictest does."""

    KILL = "kill"
    """The whole process dies by SIGSYS."""
    KILL_THREAD = "kill-thread"
    TRAP = "trap"
    """The thread gets SIGSYS; the call has no effect."""
    DENY = "deny"
    """The call fails with an errno."""
    ESCALATE = "escalate"
    """A supervisor decides; without one the call fails with ENOSYS."""
    LOG = "log"
    """Allowed, and reported."""
    ALLOW = "allow"

    @property
    def strictness(self) -> int:
        """0 is the strictest."""
        return list(CallAction).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentTest:
    """A test of one argument as an unsigned number of 64 bits.

    operator   `eq ne lt le ge gt`, or `masked_eq`: `(argument & mask) == value`
    """

    argument: int
    operator: str
    value: int
    mask: int = 0xFFFF_FFFF_FFFF_FFFF

    def holds(self, arguments: tuple[int, ...]) -> bool:
        """Whether it does; an argument that is left out is 0."""
        given = arguments[self.argument] if self.argument < len(arguments) else 0
        if self.operator == "masked_eq":
            return given & self.mask == self.value
        return bool(getattr(operator, self.operator)(given, self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRule:
    """What happens to these calls where all tests hold. `errno` counts for `deny` only."""

    names: tuple[str, ...]
    action: CallAction
    errno: int = errno.EPERM
    tests: tuple[ArgumentTest, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallPolicy:
    """Three layers, of which the kernel takes the strictest verdict.

    base        `default` (OpenShell's blocked set refused) or `minimal` (an allow-list besides)
    also        calls that `minimal` allows beyond its list; never what `default` refuses
    rules       of those that name the call and whose tests hold the strictest decides, and the first among equals
    otherwise   what happens where no rule's tests hold; `errno` if that is `deny`
    """

    base: str = "default"
    also: tuple[str, ...] = ()
    rules: tuple[CallRule, ...] = ()
    otherwise: CallAction = CallAction.ALLOW
    errno: int = errno.EPERM

    @property
    def escalates(self) -> bool:
        """Whether any call is a supervisor's to decide."""
        return CallAction.ESCALATE in (self.otherwise, *(rule.action for rule in self.rules))

    def verdict(self, name: str, arguments: tuple[int, ...] = ()) -> tuple[CallAction, int]:
        """What the rules alone say to a call and with which errno; arguments that are left out are 0."""
        holding = [rule for rule in self.rules if name in rule.names and all(t.holds(arguments) for t in rule.tests)]
        if not holding:
            return self.otherwise, self.errno
        strictest = min(holding, key=lambda rule: rule.action.strictness)
        return strictest.action, strictest.errno

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> SyscallPolicy:
        """The policy from its fields as JSON has them; `KeyError`, `TypeError` or `ValueError` if they are not its."""
        rules = tuple(
            CallRule(
                names=tuple(rule["names"]),
                action=CallAction(rule["action"]),
                errno=rule["errno"],
                tests=tuple(ArgumentTest(**test) for test in rule["tests"]),
            )
            for rule in given["rules"]
        )
        return cls(
            base=given["base"],
            also=tuple(given["also"]),
            rules=rules,
            otherwise=CallAction(given["otherwise"]),
            errno=given["errno"],
        )
