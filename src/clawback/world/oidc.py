"""The identity providers' side of the world: OpenID Connect, or OAuth 2.0 with published metadata.

A client credential is a JSON text with `client_id`, `client_secret` (absent: a public client) and, where it is not
HTTP Basic, `token_endpoint_auth_method`. Where a call takes `client`, empty means our own client at that issuer. Values
must go nowhere but the secret store. `Unreachable` where the issuer does not answer; other refusals are
`ClawbackError`s without the value in them. A probe tells a refusal, which is an answer, from silence, which proves
nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Oidc"]


class Oidc(Protocol):
    """All issuers that are configured, each by its issuer URL. `InvalidInput` for one that is not."""

    def prepare(self) -> None:
        """Load what is needed to ask, and ask nothing: an incident must not wait for it."""
        ...

    def revoke(self, issuer: str, token: str, *, hint: str, client: str = "") -> str:
        """Revoke an `access_token` or `refresh_token` (RFC 7009). Empty, or why this issuer cannot recall it.

        An issuer answers success for a token that it does not know too: success is no proof. `Refused` where the client
        is not authenticated, or not allowed to.
        """
        ...

    def introspect(self, issuer: str, token: str, *, hint: str, client: str = "") -> dict[str, Any] | None:
        """What the issuer says of a token (RFC 7662): `active`, and if so `client_id`, `sub`, `scope`, `exp` …, never
        the token. None where it does not introspect such a token, or has no endpoint for it.
        """
        ...

    def use(self, issuer: str, token: str, *, resource: str = "") -> tuple[bool, str] | None:
        """Read a resource with an access token, the issuer's own userinfo where none is named: (accepted, answer).

        None where there is nothing to read. The answer never holds what was read.
        """
        ...

    def refresh(self, issuer: str, token: str, *, client: str) -> tuple[bool, str, dict[str, str]]:
        """Use a refresh token: (accepted, answer, the tokens won). Won tokens are new credentials: revoke them."""
        ...

    def authenticates(self, issuer: str, client: str) -> tuple[bool, str]:
        """Authenticate as a client at the token endpoint, asking for nothing it could get: (accepted, answer)."""
        ...

    def register(self, issuer: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """Register a client (RFC 7591): its metadata, with `client_id`, `client_secret` and, to manage it,
        `registration_client_uri` and `registration_access_token`. `Refused` without a right to.
        """
        ...

    def registration(self, issuer: str, uri: str, token: str) -> dict[str, Any]:
        """A client's metadata as registered, with its present secret (RFC 7592). `Refused` where the token is not good
        any more, or the client is gone.
        """
        ...

    def registration_update(self, issuer: str, uri: str, token: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """Replace the metadata. Issuers may issue a new `client_secret`, a new `registration_access_token`, or both:
        the old ones are dead then, and the answer is all there is of the new.
        """
        ...

    def registration_delete(self, issuer: str, uri: str, token: str) -> None:
        """Delete the client. `Refused` where the token is not good any more, or the client is gone."""
        ...
