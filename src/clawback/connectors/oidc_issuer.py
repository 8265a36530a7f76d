"""One OpenID Connect issuer by httpx: its metadata, our own client there, and how its answers become ours.

Nothing is retried and no redirect is followed. Every address is `https`, or loopback; an answer is read up to 1 MiB.
Error messages carry the endpoint's name, the status and the OAuth error code, never a request or a description, which
some issuers fill with what they were sent.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from clawback.errors import ClawbackError, InvalidInput, NotFound, Unreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Issuer", "client_parts"]

_CONNECT_SECONDS = 1.0
_READ_SECONDS = 1.8
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """An issuer's answer: `body` is its JSON object, empty where it is none."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """The OAuth error code (RFC 6749 section 5.2), or the status."""
        code = self.body.get("error")
        return code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,64}", code) else f"HTTP {self.status}"


class Issuer:
    """One issuer, one connection pool; any number of threads.

    url                  as its metadata names itself
    credentials_file     our own client's credential (JSON, see `clawback.world.oidc`); None: we have none there
    initial_token_file   an initial access token for registering clients; None: registration needs none, or is not ours
    ca_file              certificate authority, where it is not the system's
    """

    def __init__(
        self,
        url: str,
        *,
        credentials_file: Path | None = None,
        initial_token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.url = _checked(url.rstrip("/"), "oidc.issuer")
        self._credentials_file = credentials_file
        self._initial_token_file = initial_token_file
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}

    def endpoint(self, name: str) -> str:
        """An endpoint's address, such as `revocation`; empty where the issuer publishes none."""
        url = self.metadata().get(f"{name}_endpoint", "")
        return _checked(str(url), f"{self.url}: {name}_endpoint") if url else ""

    def metadata(self) -> dict[str, Any]:
        """The discovery document, read once."""
        with self._lock:
            if not self._metadata:
                self._metadata = self._discover()
            return self._metadata

    @property
    def own_client(self) -> str:
        """Our own client's credential. `InvalidInput` where there is none."""
        if self._credentials_file is None:
            raise InvalidInput(
                f"no client of our own is configured at {self.url}", hint="set credentials_file in its entry of `oidc`"
            )
        return _read_private(self._credentials_file, "oidc.credentials_file")

    @property
    def initial_token(self) -> str:
        """The initial access token; empty where none is configured."""
        if self._initial_token_file is None:
            return ""
        return _read_private(self._initial_token_file, "oidc.initial_token_file").strip()

    def form(self, url: str, what: str, fields: Mapping[str, str], client: str) -> Answer:
        """POST a form as a client."""
        parts = client_parts(client or self.own_client)
        headers, more = _authentication(parts)
        return self.send("POST", url, what, headers=headers, data={**fields, **more})

    def send(self, method: str, url: str, what: str, **request: Any) -> Answer:
        """Ask. `Unreachable` where no answer comes, or the issuer says that it cannot serve now."""
        import httpx

        try:
            with self._http.stream(method, _checked(url, what), **request) as reply:
                data = b""
                for chunk in reply.iter_bytes():
                    data += chunk
                    if len(data) > _MAX_BYTES:
                        raise ClawbackError(f"{self.url} answered {what} with more than {_MAX_BYTES} bytes")
                status = reply.status_code
        except httpx.HTTPError as error:
            raise Unreachable(
                f"{self.url} did not answer {what} ({type(error).__name__})",
                hint="check the network and the issuer; `clawback resume` tries again",
            ) from None
        if status >= 500 or status == 429:
            raise Unreachable(
                f"{self.url} cannot serve {what} now (HTTP {status})", hint="`clawback resume` tries again"
            )
        try:
            body = json.loads(data) if data else {}
        except ValueError:
            body = {}
        return Answer(status, body if isinstance(body, dict) else {})

    @cached_property
    def _http(self) -> httpx.Client:
        import ssl

        import httpx

        trust = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
        return httpx.Client(
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=False,
            verify=trust,
            headers={"accept": "application/json"},
        )

    def _discover(self) -> dict[str, Any]:
        parts = urlsplit(self.url)
        for url in (
            f"{self.url}/.well-known/openid-configuration",
            f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{parts.path}",  # RFC 8414
        ):
            answer = self.send("GET", url, "its metadata")
            if answer.status == 404:
                continue
            # Whoever could name another issuer here could have our clients' secrets sent elsewhere.
            if answer.status != 200 or str(answer.body.get("issuer", "")).rstrip("/") != self.url:
                break
            return answer.body
        raise NotFound(
            f"{self.url} publishes no metadata of its own", hint="`issuer` is the URL that tokens name as iss"
        )


def client_parts(client: str) -> dict[str, str]:
    """A client credential's JSON as its parts. `InvalidInput` without its value."""
    try:
        raw = json.loads(client)
        parts = {key: raw[key] for key in ("client_id", "client_secret", "token_endpoint_auth_method") if raw.get(key)}
    except (ValueError, TypeError, AttributeError):
        parts = {}
    if not parts.get("client_id") or not all(isinstance(part, str) for part in parts.values()):
        raise InvalidInput("not a client credential", hint='JSON with "client_id", and "client_secret" unless public')
    method = parts.get("token_endpoint_auth_method", "client_secret_basic")
    if parts.get("client_secret") and method not in ("client_secret_basic", "client_secret_post"):
        raise InvalidInput(
            f"clients that authenticate by {method[:40]!a} cannot be used",
            hint="client_secret_basic or client_secret_post",
        )
    return parts


def _authentication(parts: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(headers, form fields) by which a client authenticates (RFC 6749 section 2.3.1)."""
    identity, secret = parts["client_id"], parts.get("client_secret", "")
    if not secret:
        return {}, {"client_id": identity}
    if parts.get("token_endpoint_auth_method") == "client_secret_post":
        return {}, {"client_id": identity, "client_secret": secret}
    import base64

    pair = f"{quote(identity, safe='')}:{quote(secret, safe='')}"  # both are form-encoded first
    return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}, {}


def _checked(url: str, what: str) -> str:
    """The address, if a secret may be sent to it. `InvalidInput`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    loopback = host == "localhost"
    try:
        loopback = loopback or ip_address(host).is_loopback
    except ValueError:
        pass
    if (
        not host
        or parts.username
        or parts.fragment
        or not (parts.scheme == "https" or (parts.scheme == "http" and loopback))
    ):
        raise InvalidInput(f"{what}: {url[:200]!a} is no https URL", hint="https://HOST/…; http on loopback only")
    return url


def _read_private(path: Path, key: str) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise InvalidInput(f"{path}: others may read it", hint=f"chmod 600 {path}")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read ({type(error).__name__})", hint=f"{key} must name a file") from None
