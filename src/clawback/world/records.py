"""The issuers' own records: what was issued by whom, read by `credential.trace`, and the means to close what it finds.

`Unreachable` where a record cannot be read now; None, or an empty answer, where the issuer keeps none. Everything in a
record may have been chosen by an agent: it is bounded here, and data everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["AuditLog", "Audited", "CloudRecords", "Identity", "Trail", "TrailEvent", "VaultRecords"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One answered request that issued something. Names ending in `_hash` are HMACs, as the audit device wrote them.

    actor_hash        accessor of the token that asked; empty for a login
    path              what was asked
    token_hash        accessor of a token that was issued, wrapped or not
    lease             id of a lease that was issued
    secret_id_hash    of an AppRole secret-id that was issued; `secret_id_accessor_hash` its accessor
    login_hash        of the secret-id that a login presented
    batch_hash        of a batch token that was issued: the token itself, for it has no accessor; `ttl_seconds` its life
    actor_token_hash  of the token that asked, by itself
    """

    time_ns: int
    actor_hash: str
    path: str
    token_hash: str = ""
    lease: str = ""
    secret_id_hash: str = ""
    secret_id_accessor_hash: str = ""
    login_hash: str = ""
    batch_hash: str = ""
    ttl_seconds: int = 0
    actor_token_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """What an audit device wrote, oldest first. `cut` says what the bound on reading left out, empty for nothing."""

    entries: tuple[Audited, ...]
    cut: str = ""


class VaultRecords(Protocol):
    """HashiCorp Vault's or OpenBao's."""

    def audit(self) -> AuditLog | None:
        """The audit device's file; None where none is configured."""
        ...

    def audit_hash(self, text: str) -> str:
        """The HMAC by which the audit device writes this text."""
        ...

    def accessors(self) -> Sequence[str]:
        """Accessors of all live tokens; at most 10,000."""
        ...

    def may(self, accessor: str, paths: Sequence[str]) -> Mapping[str, bool]:
        """For each path, whether this live token may create or update there."""
        ...

    def lease(self, lease: str) -> dict[str, Any] | None:
        """`ttl` (seconds left), `expire_time`; None where the lease is not in force."""
        ...

    def lease_revoke(self, lease: str) -> None:
        """Revoke one lease, and wait until its backend has confirmed. Already gone is success."""
        ...

    def secret_ids(self, role: str) -> Sequence[str]:
        """Accessors of an AppRole's secret-ids. `role` is a path: `auth/approle/role/NAME`."""
        ...

    def secret_id_destroy(self, role: str, accessor: str) -> None:
        """Destroy one. Already gone is success."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailEvent:
    """One management call as CloudTrail recorded it.

    caller_key   access key id it was signed with
    issuer       ARN of the role that the caller's session is of; empty for a user, or where the record does not say
    user         IAM user name of the caller, empty where the record does not say
    params       request parameters that are plain strings, by CloudTrail's names (`roleArn`, `userName` …)
    made         ids from the answer: `accessKeyId`, `userName`, `arn` …; empty where the record holds no answer
    error        code by which it was refused; empty where it was let through, or where the record holds no answer
    """

    time_ns: int
    name: str
    caller_key: str
    issuer: str = ""
    user: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Calls, oldest first. `cut` says in words what was left out.

    Complete from `since_ns` (0: from the beginning) until `until_ns` (0: until it was read).
    """

    events: tuple[TrailEvent, ...]
    cut: tuple[str, ...] = ()
    since_ns: int = 0
    until_ns: int = 0

    def covers(self, moment_ns: int) -> bool:
        """Whether what happened then must be in it."""
        return self.since_ns <= moment_ns and not 0 < self.until_ns <= moment_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An IAM role: its ARN and trust policy, as IAM lists them."""

    arn: str
    trust: Mapping[str, Any]


class CloudRecords(Protocol):
    """AWS IAM's listings and CloudTrail's record. A principal is `user/NAME`, `role/NAME` or a role's ARN."""

    def trail(self, *, since_ns: int) -> Trail:
        """Calls since then that change something or issue sessions, whoever made them."""
        ...

    def trail_named(self, names: Sequence[str], *, since_ns: int) -> Trail:
        """Calls of IAM with these names since then, whoever made them."""
        ...

    def trail_of(self, access_key_id: str) -> Trail:
        """Calls signed with one key, in the 90 days that CloudTrail keeps."""
        ...

    def keys(self, user: str) -> Mapping[str, tuple[str, int]]:
        """Access key id → (`Active` | `Inactive`, created, Unix nanoseconds). Empty for an unknown user."""
        ...

    def roles(self) -> Sequence[Identity]:
        """All roles; at most 5,000."""
        ...

    def exists(self, principal: str) -> bool:
        """Whether IAM has this user or role."""
        ...

    def inline(self, principal: str) -> Mapping[str, dict[str, Any]]:
        """Name → document of its inline policies. Empty for an unknown principal."""
        ...

    def inline_put(self, principal: str, name: str, document: Mapping[str, Any]) -> None:
        """Set one."""
        ...

    def inline_delete(self, principal: str, name: str) -> None:
        """Remove one. Already gone is success."""
        ...

    def attached(self, principal: str) -> Sequence[str]:
        """ARNs of the managed policies attached to it. Empty for an unknown principal."""
        ...

    def attach(self, principal: str, policy: str) -> None:
        """Attach a managed policy."""
        ...

    def detach(self, principal: str, policy: str) -> None:
        """Detach it. Already gone is success."""
        ...
