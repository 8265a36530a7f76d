"""Policy versions, as the store keeps them, and decisions, as the engine makes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from clawback.model.agent import Attempt

__all__ = ["Decision", "Draft", "Narrowing", "PolicyVersion", "staged_from", "staged_name"]

_STAGED = re.compile(r"(?P<policy>[a-z0-9._-]+)\.staged-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version of one policy; `sha256` is of the file's bytes; `diff` is unified against the version before."""

    policy: str
    version: int
    sha256: str
    author: str
    reason: str
    created_ns: int
    known_good: bool
    incident: str = ""
    diff: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the policy engine says to one call. `rule` names the rule that decided, empty where none matched.

    level      what decided: `destination`, `binary`, `method`, `path`, `content`, `order` (an
               `EgressOrder`, above the policy), or `policy` for all else
    inspect    a tunnel only on condition that TLS ends in the gateway, where each request is decided anew
    audit      allowed by a rule that only watches; `reason` says what enforcing would have denied
    orders     ids of all orders that refuse it, oldest first; `rule` names the first
    calls      what the request's content calls, where a rule looked at that: `tools/call NAME`, at most 16
    """

    allowed: bool
    rule: str
    reason: str
    policy: str
    policy_version: int
    level: str = "policy"
    inspect: bool = False
    audit: bool = False
    orders: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """How a policy's text is to be made narrower. Nothing in it can widen one.

    deny      `http` and `connect` calls that are to be denied by name, and files (`open`) that are no longer shown
    keep      calls that were seen to be of use; each allowing rule shrinks to what of them it let through. None: the
              rules stay as they are. Empty with `drop`: nothing is allowed
    drop      rules that none of `keep` went by are taken out
    share     of the processor time and the processes that the policy grants, above 0, at most 1
    """

    deny: tuple[Attempt, ...] = ()
    keep: tuple[Attempt, ...] | None = None
    drop: bool = False
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A text that nobody decides by yet, made from `version` of a policy.

    diff       unified, against that version's text
    changes    each change, in words;  left: what was wanted and has no form in this policy, in words
    decisions  what the engine would say to the calls that were asked about, in their order. Where rules name programs,
               `allowed` means: to one of the programs that they name
    """

    policy: str
    version: int
    text: str
    sha256: str
    diff: str
    changes: tuple[str, ...]
    left: tuple[str, ...]
    decisions: tuple[Decision, ...]


def staged_name(policy: str, agent: str) -> str:
    """The policy that one agent runs under while its release is staged: a narrower copy of this one."""
    return f"{policy}.staged-{sha256(agent.encode()).hexdigest()[:8]}"


def staged_from(policy: str) -> str | None:
    """The policy that this one is the staged copy of, None where it is none."""
    found = _STAGED.fullmatch(policy)
    return found["policy"] if found else None
