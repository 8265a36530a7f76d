"""The issuers' side of the world: what credential actions may ask of a Vault and of a cloud's IAM.

Values are passed in and out as plain strings and must go nowhere but the secret store. `Unreachable` where the issuer
does not answer; other refusals are `ClawbackError`s without the value in them. A probe (`*_works`, `permitted` …) tells
a refusal, which is an answer, from silence, which is `Unreachable` and proves nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

__all__ = ["Cloud", "Vault"]


class Vault(Protocol):
    """HashiCorp Vault or OpenBao."""

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

    def token_find(self, meta: dict[str, str]) -> list[str]:
        """Accessors of live tokens whose metadata contains all of `meta`. One call for every live token there is."""
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


class Cloud(Protocol):
    """AWS IAM and STS, or what speaks their API.

    A credential is a JSON text with `access_key_id`, `secret_access_key` and, for a session, `session_token`.
    """

    def prepare(self) -> None:
        """Load what is needed to ask, and ask nothing: an incident must not wait for it."""
        ...

    @property
    def settle(self) -> float:
        """Seconds for which IAM may still honour what was before a change; refusals must be seen to outlast it."""
        ...

    def server_time(self) -> datetime:
        """The issuer's clock (UTC, whole seconds, rounded down), by which it stamps the sessions that it issues."""
        ...

    def access_keys(self, user: str) -> dict[str, str]:
        """Access key id → `Active` | `Inactive`."""
        ...

    def access_key_create(self, user: str) -> tuple[str, str]:
        """A new key: (id, secret)."""
        ...

    def access_key_last_used(self, access_key_id: str) -> dict[str, str]:
        """`service`, `region`, `date` (ISO 8601) of its last use as AWS recorded it; empty where it was never used."""
        ...

    def access_key_activate(self, user: str, access_key_id: str) -> None:
        """Set Active. `NotFound` where it was deleted."""
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
        """Ask who the credential is (GetCallerIdentity): (authenticated, the issuer's answer).

        AWS answers this call under an explicit deny too: it tells a dead key from a live one, and nothing of sessions.
        """
        ...

    def permitted(self, credential: str) -> tuple[bool, str]:
        """Use a credential for something harmless that its holder may do: (accepted, the issuer's answer)."""
        ...

    def assume(self, credential: str, role: str, session: str) -> tuple[bool, str]:
        """Try to become a role with somebody's credential: (accepted, answer). A session thus won is thrown away."""
        ...

    def session_create(self, credential: str, role: str, session: str) -> str:
        """Become a role with somebody's credential, and keep the session's own. `Refused` where that is denied."""
        ...

    def user_session_create(self, credential: str) -> str:
        """A user's own session (GetSessionToken), which outlives its access key. `Refused` where that is denied."""
        ...
