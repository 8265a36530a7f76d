"""The issuers' side of the world: what credential actions may ask of a Vault and of a cloud's IAM.

Values are passed in and out as plain strings and must go nowhere but the secret store. `Unreachable` where the issuer
does not answer; other refusals are `ClawbackError`s without the value in them.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Cloud", "Vault"]


class Vault(Protocol):
    """HashiCorp Vault or OpenBao."""

    def token_lookup(self, accessor: str) -> dict[str, Any] | None:
        """Non-secret facts of a token (`policies`, `ttl`, `meta`, `orphan`), None where the issuer no longer knows it."""
        ...

    def token_revoke(self, accessor: str) -> None:
        """Revoke by accessor, with all children. Already gone is success."""
        ...

    def token_create(self, *, policies: list[str], ttl: str, meta: dict[str, str]) -> tuple[str, str]:
        """A new token: (value, accessor)."""
        ...

    def token_find(self, meta: dict[str, str]) -> list[str]:
        """Accessors of live tokens whose metadata contains all of `meta`."""
        ...

    def token_works(self, token: str) -> tuple[bool, str]:
        """Use the token as its holder would: (accepted, what the issuer answered)."""
        ...

    def leases(self, prefix: str) -> list[str]:
        """Live lease ids under a prefix."""
        ...

    def leases_revoke(self, prefix: str) -> None:
        """Revoke every lease under a prefix."""
        ...

    def read_as(self, token: str, path: str) -> tuple[bool, str]:
        """Read a path with somebody's token: (accepted, status or reason), never the data."""
        ...


class Cloud(Protocol):
    """AWS IAM and STS, or what speaks their API."""

    def access_keys(self, user: str) -> dict[str, str]:
        """Access key id → `Active` | `Inactive`."""
        ...

    def access_key_create(self, user: str) -> tuple[str, str]:
        """A new key: (id, secret)."""
        ...

    def access_key_deactivate(self, user: str, access_key_id: str) -> None:
        """Set Inactive. Already gone is success."""
        ...

    def access_key_delete(self, user: str, access_key_id: str) -> None:
        """Delete. Already gone is success."""
        ...

    def sessions_refuse(self, role: str, *, before: str, name: str) -> None:
        """Attach to a role an inline policy `name` that denies everything to sessions issued before (ISO 8601, UTC)."""
        ...

    def sessions_allow(self, role: str, *, name: str) -> None:
        """Remove that inline policy."""
        ...

    def user_refuse(self, user: str, *, before: str, name: str) -> None:
        """The same for a user's own GetSessionToken sessions."""
        ...

    def user_allow(self, user: str, *, name: str) -> None:
        """Remove that inline policy."""
        ...

    def inline_policy(self, role_or_user: str, name: str) -> dict[str, Any] | None:
        """The document, None where it is absent. A role is given by ARN or `role/NAME`, a user as `user/NAME`."""
        ...

    def trust(self, role: str) -> dict[str, Any]:
        """A role's trust policy document."""
        ...

    def trust_set(self, role: str, document: dict[str, Any]) -> None:
        """Replace it."""
        ...

    def works(self, credential: str) -> tuple[bool, str]:
        """Use a credential as its holder would: a JSON text with `access_key_id`, `secret_access_key` and, for a session,
        `session_token`; (accepted, the issuer's answer)."""
        ...
