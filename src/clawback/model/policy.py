"""Policy versions, as the store keeps them, and decisions, as the engine makes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Decision", "PolicyVersion"]


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
