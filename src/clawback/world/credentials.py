"""The issuers' side of the world: what credential actions may ask of a Vault.

Values are passed in and out as plain strings and must go nowhere but the secret store. `Unreachable` where the issuer
does not answer; other refusals are `ClawbackError`s without the value in them. A probe (`*_works`, `permitted` …) tells
a refusal, which is an answer, from silence, which is `Unreachable` and proves nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

from clawback.world.vault_engines import AppRole, KeyValue, Reissue, StaticRoles, Transit, Wrapping

__all__ = ["Vault"]


class Vault(Protocol):
    """HashiCorp Vault or OpenBao."""

    @property
    def reissue(self) -> Reissue:
        """The bounds of what is issued anew."""
        ...

    @property
    def approle(self) -> AppRole:
        """AppRole logins."""
        ...

    @property
    def static_roles(self) -> StaticRoles:
        """Static roles of database engines."""
        ...

    @property
    def transit(self) -> Transit:
        """Keys of transit engines."""
        ...

    @property
    def kv(self) -> KeyValue:
        """Stored secrets."""
        ...

    @property
    def wrapping(self) -> Wrapping:
        """Response wrapping."""
        ...

    def prepare(self) -> None:
        """Load what is needed to ask, and ask nothing: an incident must not wait for it."""
        ...

    def token_lookup(self, accessor: str) -> dict[str, Any] | None:
        """Non-secret facts of a token, None where the issuer no longer knows it.

        `policies`, `ttl` (seconds left), `creation_ttl`, `explicit_max_ttl`, `period`, `num_uses`, `renewable`,
        `orphan`, `meta`, `role` (token role, empty without), `path` (where it was issued), `display_name`,
        `creation_time` (Unix seconds), `expire_time` (ISO 8601).
        """
        ...

    def token_revoke(self, accessor: str) -> None:
        """Revoke by accessor, with all children. Already gone is success."""
        ...

    def token_create(
        self,
        *,
        policies: list[str],
        ttl: str,
        meta: dict[str, str],
        role: str = "",
        period: str = "",
        explicit_max_ttl: str = "",
        num_uses: int = 0,
        renewable: bool = True,
        orphan: bool = False,
    ) -> tuple[str, str]:
        """A new token: (value, accessor). Exactly these policies, without `default`. 0 and "" leave a limit out."""
        ...

    def token_made(self, accessor: str) -> dict[str, Any] | None:
        """What never changes of a token: its `meta`, `path`, `creation_time`. None where the issuer does not know it;
        one that was looked up before may be dead.
        """
        ...

    def token_find(self, meta: dict[str, str]) -> list[str]:
        """Accessors of live tokens whose metadata has all of `meta`. One call for each that was not seen before."""
        ...

    def token_works(self, token: str) -> tuple[bool, str]:
        """Use the token as its holder would: (accepted, what the issuer answered)."""
        ...

    def leases(self, prefix: str) -> list[str]:
        """Live lease ids under a prefix."""
        ...

    def leases_revoke(self, prefix: str) -> None:
        """Revoke every lease under a prefix, and wait until each backend has confirmed."""
        ...

    def lease_issue(self, token: str, path: str) -> tuple[str, str]:
        """Ask for a dynamic credential with somebody's token: (lease id, its data as JSON). `Refused` where denied."""
        ...

    def read_as(self, token: str, path: str) -> tuple[bool, str]:
        """Read a path with somebody's token: (accepted, status or reason), never the data."""
        ...
