"""OpenID Connect and OAuth 2.0 issuers: `clawback.world.Oidc`.

Revocation is RFC 7009, introspection RFC 7662, registration RFC 7591, its management RFC 7592.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from clawback.connectors.oidc_issuer import Answer, Issuer
from clawback.errors import ClawbackError, InvalidInput, Refused, Unreachable

__all__ = ["OidcConnector"]

# By these an issuer says that it knows who asks, and then no (RFC 6749 section 5.2).
_AUTHENTICATED = frozenset({"invalid_grant", "invalid_scope", "unauthorized_client", "unsupported_grant_type"})


class OidcConnector:
    """All issuers that are configured; any number of threads."""

    def __init__(self, issuers: Iterable[Issuer]) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}

    def prepare(self) -> None:
        """Load the library before an incident waits for it. Contacts nobody."""
        import httpx

        del httpx

    def revoke(self, issuer: str, token: str, *, hint: str, client: str = "") -> str:
        """Revoke; empty, or why the issuer cannot recall it."""
        there = self._issuer(issuer)
        url = there.endpoint("revocation")
        if not url:
            return "the issuer has no revocation endpoint"
        answer = there.form(url, "revocation", {"token": token, "token_type_hint": hint}, client)
        if answer.status == 200:
            return ""
        if answer.error == "unsupported_token_type":
            return "the issuer does not revoke tokens of this type"
        raise _refused(there, "revocation", answer)

    def introspect(self, issuer: str, token: str, *, hint: str, client: str = "") -> dict[str, Any] | None:
        """What the issuer says of a token; None where it says nothing of such."""
        there = self._issuer(issuer)
        url = there.endpoint("introspection")
        if not url:
            return None
        answer = there.form(url, "introspection", {"token": token, "token_type_hint": hint}, client)
        if answer.error == "unsupported_token_type":
            return None
        if answer.status != 200:
            raise _refused(there, "introspection", answer)
        if not isinstance(answer.body.get("active"), bool):
            raise _no_answer(there, "introspection")
        # An opaque token's `jti` may be the token itself.
        return {key: value for key, value in answer.body.items() if value != token and key != "jti"}

    def use(self, issuer: str, token: str, *, resource: str = "") -> tuple[bool, str] | None:
        """Read a resource, or userinfo, with an access token."""
        there = self._issuer(issuer)
        url = resource or there.endpoint("userinfo")
        if not url:
            return None
        what = "the resource" if resource else "userinfo"
        answer = there.send("GET", url, what, headers={"authorization": f"Bearer {token}"})
        if 200 <= answer.status < 300:
            return True, f"{what}: HTTP {answer.status}"
        if answer.status in (401, 403):
            return False, f"{what}: HTTP {answer.status}{' ' + answer.error if answer.body.get('error') else ''}"
        raise ClawbackError(f"{what} of {issuer} answered HTTP {answer.status}: neither accepted nor refused")

    def refresh(self, issuer: str, token: str, *, client: str) -> tuple[bool, str, dict[str, str]]:
        """Use a refresh token."""
        there = self._issuer(issuer)
        answer = there.form(
            self._token_endpoint(there), "a refresh", {"grant_type": "refresh_token", "refresh_token": token}, client
        )
        if answer.status == 200:
            if not answer.body.get("access_token"):
                raise _no_answer(there, "a refresh")
            won = {key: str(answer.body[key]) for key in ("access_token", "refresh_token") if answer.body.get(key)}
            return True, "refresh grant: HTTP 200", won
        if answer.status in (400, 401, 403) and answer.body.get("error"):
            return False, f"refresh grant: {answer.error}", {}
        raise _refused(there, "a refresh", answer)

    def authenticates(self, issuer: str, client: str) -> tuple[bool, str]:
        """Offer a refresh token that never was: only a client that is known is told so."""
        there = self._issuer(issuer)
        fields = {"grant_type": "refresh_token", "refresh_token": secrets.token_urlsafe(24)}
        answer = there.form(self._token_endpoint(there), "authentication", fields, client)
        said = f"token endpoint: HTTP {answer.status} {answer.error}"
        # Some issuers say `unauthorized_client` to a wrong secret, but then with 401.
        if answer.status == 401 or answer.error == "invalid_client":
            return False, said
        if answer.error in _AUTHENTICATED:
            return True, said
        if answer.status == 200:
            raise _no_answer(there, "authentication")
        raise _refused(there, "authentication", answer)

    def register(self, issuer: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """Register a client."""
        there = self._issuer(issuer)
        url = there.endpoint("registration")
        if not url:
            raise Refused(f"{issuer} registers no clients by itself", hint="its administrator makes one")
        headers = {"authorization": f"Bearer {there.initial_token}"} if there.initial_token else {}
        answer = there.send("POST", url, "registration", json=metadata, headers=headers)
        if answer.status not in (200, 201) or not isinstance(answer.body.get("client_id"), str):
            raise _refused(there, "registration", answer)
        return answer.body

    def registration(self, issuer: str, uri: str, token: str) -> dict[str, Any]:
        """A client's metadata as registered."""
        return self._manage("GET", issuer, uri, token)

    def registration_update(self, issuer: str, uri: str, token: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """Replace it."""
        return self._manage("PUT", issuer, uri, token, json=metadata)

    def registration_delete(self, issuer: str, uri: str, token: str) -> None:
        """Delete the client."""
        self._manage("DELETE", issuer, uri, token)

    def _manage(self, method: str, issuer: str, uri: str, token: str, **request: Any) -> dict[str, Any]:
        there = self._issuer(issuer)
        answer = there.send(method, uri, "client management", headers={"authorization": f"Bearer {token}"}, **request)
        if not 200 <= answer.status < 300:
            raise _refused(there, "client management", answer)
        return answer.body

    def _issuer(self, url: str) -> Issuer:
        found = self._issuers.get(url.rstrip("/"))
        if found is None:
            raise InvalidInput(
                f"{url[:200]!a} is no issuer that is configured", hint="add it to `oidc` in clawback.yaml"
            )
        return found

    def _token_endpoint(self, there: Issuer) -> str:
        url = there.endpoint("token")
        if not url:
            raise InvalidInput(f"{there.url} has no token endpoint", hint="nothing can be tried there")
        return url


def _no_answer(there: Issuer, what: str) -> Unreachable:
    """Whatever speaks there, its yes would be worth nothing either."""
    return Unreachable(
        f"{there.url} answered {what} with what is no answer to it", hint="`clawback resume` tries again"
    )


def _refused(there: Issuer, what: str, answer: Answer) -> ClawbackError:
    said = f"{there.url} {what}: HTTP {answer.status} {answer.error}"
    if answer.status in (400, 401, 403, 404):
        return Refused(said, hint="docs/permissions.md lists what Clawback's own client needs")
    return ClawbackError(said)
