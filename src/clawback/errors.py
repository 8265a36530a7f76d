"""Every error that Clawback raises on purpose.

ClawbackError                what happened, to what; `hint` says what to do next
├── InvalidInput             a file, line, key or argument is wrong              exit 2
├── NotFound                 no such agent, incident, policy or unit             exit 4
├── Refused                  not permitted: a hold, a peer, a wrong instance     exit 5
├── Unreachable              a part did not answer; trying again later may help  exit 3
└── NotEnforced              the kernel or a part did not do what was required   exit 1

A type exists only where a caller branches on it. Messages never carry a secret's value.
"""

from __future__ import annotations

__all__ = ["ClawbackError", "InvalidInput", "NotEnforced", "NotFound", "Refused", "Unreachable"]


class ClawbackError(Exception):
    """Base of the tree. `exit_status` is what the command line ends with."""

    exit_status = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(ClawbackError):
    """A file, line, key or argument is wrong; the message names it, the hint mends it."""

    exit_status = 2


class NotFound(ClawbackError):
    """No such agent, incident, policy, version or unit."""

    exit_status = 4


class Refused(ClawbackError):
    """Understood, possible, and not permitted."""

    exit_status = 5


class Unreachable(ClawbackError):
    """A part did not answer. What depended on it is pending, not done."""

    exit_status = 3


class NotEnforced(ClawbackError):
    """Something was required in full and was not observed to hold."""

    exit_status = 1
