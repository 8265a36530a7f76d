"""What credential actions may ask of a Vault's engines, beside its tokens and leases.

The rules are those of `clawback.world.credentials`: values go nowhere but to the secret store, and a probe tells a
refusal from silence. `mount` is where an engine is mounted: `approle` is asked at `auth/approle`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["AppRole", "KeyValue", "Reissue", "StaticRoles", "Transit", "Wrapping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reissue:
    """The most that is issued in place of what was taken away: seconds to live, and logins where they are counted."""

    ttl: int = 3600
    uses: int = 10


class AppRole(Protocol):
    """Logins by role-id and secret-id."""

    def role(self, mount: str, role: str) -> dict[str, Any] | None:
        """`role_id`, and the bounds of secret-ids: `ttl` (seconds) and `uses`, 0 where there is none; `kind` of the
        tokens that a login gets (`default`, `service`, `batch`). None where there is no such role.
        """
        ...

    def secret_ids(self, mount: str, role: str) -> list[str]:
        """Accessors of all secret-ids of a role."""
        ...

    def facts(self, mount: str, role: str, accessor: str) -> dict[str, Any] | None:
        """One secret-id by its accessor: `accessor`, `ttl`, `uses` (left; 0: no limit), `meta`, `cidrs`. None where it
        is gone.
        """
        ...

    def facts_of(self, mount: str, role: str, secret_id: str) -> dict[str, Any] | None:
        """The same by its value. Asking does not use it up."""
        ...

    def issue(
        self, mount: str, role: str, *, ttl: int, uses: int, meta: dict[str, str], cidrs: tuple[list[str], list[str]]
    ) -> tuple[str, str]:
        """A new secret-id: (value, accessor). `cidrs`: from where it may log in, and from where its tokens
        may be used.
        """
        ...

    def destroy(self, mount: str, role: str, accessor: str) -> None:
        """End a secret-id. Already gone is success."""
        ...

    def logs_in(self, mount: str, role_id: str, secret_id: str) -> tuple[bool, str]:
        """Log in as its holder would: (accepted, what the issuer answered). A token thus won is revoked at once.

        Counts as a use.
        """
        ...


class StaticRoles(Protocol):
    """Database users whose password the database engine keeps and changes."""

    def role(self, mount: str, role: str) -> dict[str, Any] | None:
        """`user`, `rotated` (ISO 8601, when the password was last changed), `period` (seconds between changes). None
        where there is no such role.
        """
        ...

    def credential(self, mount: str, role: str) -> tuple[str, str]:
        """The login in force: (user, password)."""
        ...

    def rotate(self, mount: str, role: str) -> None:
        """Change the password now; returns once the database has taken it."""
        ...


class Transit(Protocol):
    """Keys that never leave the server, in versions."""

    def key(self, mount: str, key: str) -> dict[str, Any] | None:
        """`latest` version, the oldest that is still taken for decrypting and verifying (`decrypts_from`), and for
        encrypting and signing (`encrypts_from`, 0: only the latest); `exportable`. None where there is no such key.
        """
        ...

    def rotate(self, mount: str, key: str) -> None:
        """Add a version."""
        ...

    def set_minimum(self, mount: str, key: str, *, decrypts_from: int, encrypts_from: int) -> None:
        """Set both limits, up or down."""
        ...

    def probe(self, mount: str, key: str) -> str:
        """A ciphertext (or signature, or HMAC, as the key allows) of a meaningless text, by the latest version."""
        ...

    def takes(self, mount: str, key: str, probe: str) -> tuple[bool, str]:
        """Decrypt (or verify) a probe: (it is taken and right, what the server answered)."""
        ...


class KeyValue(Protocol):
    """Secrets that are only stored, in versions (KV version 2)."""

    def versions(self, mount: str, path: str) -> dict[int, bool] | None:
        """Version → whether it can be read. None where there is no such secret."""
        ...

    def put(self, mount: str, path: str, data: dict[str, Any], *, after: int) -> int:
        """A new version with this data; its number. `ClawbackError` unless version `after` is the newest."""
        ...

    def patch(self, mount: str, path: str, data: dict[str, Any], *, after: int) -> int:
        """The same, with the other fields as they are in version `after`."""
        ...

    def delete(self, mount: str, path: str, versions: list[int]) -> None:
        """Make versions unreadable; nothing is destroyed."""
        ...

    def undelete(self, mount: str, path: str, versions: list[int]) -> None:
        """Make them readable again."""
        ...

    def read_as(self, token: str, mount: str, path: str, version: int) -> tuple[dict[str, Any] | None, str]:
        """Read a version (0: the newest) with somebody's token, or our own where `token` is empty: (data, None where it
        was refused; what the server answered). The data is secret.
        """
        ...


class Wrapping(Protocol):
    """Tokens that stand for an answer and give it out once."""

    def wrap(self, data: dict[str, str], *, ttl: int) -> tuple[str, str]:
        """Wrap something for `ttl` seconds: (token, accessor)."""
        ...

    def waits(self, token: str) -> tuple[bool, str]:
        """Whether it can still be unwrapped, without doing so: (it can, what the server answered)."""
        ...

    def unwrap(self, token: str) -> tuple[dict[str, Any] | None, str]:
        """Unwrap, which spends it: (what was in it, None where it was refused; what the server answered)."""
        ...
