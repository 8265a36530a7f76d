"""HashiCorp Vault or OpenBao by hvac: `clawback.world.Vault`.

Silence, a sealed or standby server, rate limits and server faults are `Unreachable`: what was asked may or may not have
happened, and is asked again later. Values that we send are taken out of every message before it is raised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused, Unreachable

__all__ = ["VaultConnector"]

_CONNECT_SECONDS = 1.0
_READ_SECONDS = 1.5
# Revoking a prefix waits for each lease's backend; a database may take its time over a thousand logins.
_REVOKE_SECONDS = 60.0
_MAX_LEASES = 10_000
_NO_ANSWER = (KeyError, IndexError, TypeError, AttributeError)  # what reading an answer of another shape raises
_FACTS = (
    "policies",
    "ttl",
    "creation_ttl",
    "explicit_max_ttl",
    "num_uses",
    "renewable",
    "orphan",
    "path",
    "display_name",
    "creation_time",
    "expire_time",
)


class VaultConnector:
    """One server, one long-lived connection pool; any number of threads.

    address      `https://vault.example:8200`
    token_file   our own token, read once a connection is first needed; mode 0600
    ca_file      certificate authority, where it is not the system's
    """

    def __init__(self, address: str, token_file: Path, *, ca_file: Path | None = None) -> None:
        self._address = address
        self._token_file = token_file
        self._ca_file = ca_file

    def prepare(self) -> None:
        """Load the library before an incident waits for it. Contacts nobody."""
        self._as("none")

    def token_lookup(self, accessor: str) -> dict[str, Any] | None:
        """Facts of a token, None where the server no longer knows its accessor."""
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

        with _asking("auth/token/lookup-accessor", self._address):
            try:
                data = self._ours.auth.token.lookup_accessor(accessor)["data"]
                facts = {key: data.get(key) for key in _FACTS}
            except InvalidPath:
                return None
            except (Forbidden, InvalidRequest) as error:
                # The same status says "no such accessor" and "you may not ask"; only the first is an answer.
                if "invalid accessor" in str(error):
                    return None
                raise
        return facts | {
            "meta": data.get("meta") or {},
            "role": data.get("role") or "",
            "period": data.get("period") or 0,
        }

    def token_revoke(self, accessor: str) -> None:
        """Revoke by accessor, children too."""
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

        with _asking("auth/token/revoke-accessor", self._address):
            try:
                self._ours.auth.token.revoke_accessor(accessor)
            except InvalidPath:
                return
            except (Forbidden, InvalidRequest) as error:
                if "invalid accessor" not in str(error):
                    raise

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
        """A new token: (value, accessor)."""
        if not policies and not role:
            # Vault would take this to mean all the policies that we have ourselves.
            raise InvalidInput("a token without policies is not issued", hint="name the policies it shall have")
        body: dict[str, Any] = {
            "policies": policies,
            "no_default_policy": "default" not in policies,  # with it set, an asked-for `default` is dropped too
            "meta": meta,
            "renewable": renewable,
        }
        optional = {"ttl": ttl, "period": period, "explicit_max_ttl": explicit_max_ttl, "num_uses": num_uses}
        body |= {key: value for key, value in optional.items() if value}
        path = f"auth/token/create/{quote(role, safe='')}" if role else "auth/token/create"
        if orphan and not role:  # a role decides for itself
            path = "auth/token/create-orphan"
        with _asking(path, self._address):
            auth = self._ours.adapter.post(f"/v1/{path}", json=body)["auth"]
        return str(auth["client_token"]), str(auth["accessor"])

    def token_find(self, meta: dict[str, str]) -> list[str]:
        """Accessors of live tokens with all of `meta`: lists every accessor and looks each up."""
        from hvac.exceptions import InvalidPath

        with _asking("auth/token/accessors", self._address):
            try:
                accessors = self._ours.auth.token.list_accessors()["data"]["keys"]
            except InvalidPath:
                return []
        found = []
        for accessor in accessors:
            facts = self.token_lookup(accessor)
            if facts is not None and meta.items() <= facts["meta"].items():
                found.append(str(accessor))
        return found

    def token_works(self, token: str) -> tuple[bool, str]:
        """Look the token up by itself.

        One whose policies do not even grant that asks which mounts it may see, which any live token gets an answer to.
        """
        accepted, answer = self.read_as(token, "auth/token/lookup-self")
        return (True, answer) if accepted else self.read_as(token, "sys/internal/ui/mounts")

    def leases(self, prefix: str) -> list[str]:
        """Live lease ids under a prefix, at every depth; at most 10,000."""
        from hvac.exceptions import InvalidPath

        found: list[str] = []
        folders = [prefix.rstrip("/") + "/"]
        with _asking("sys/leases/lookup", self._address):
            while folders and len(found) < _MAX_LEASES:
                folder = folders.pop()
                try:
                    keys = self._ours.sys.list_leases(prefix=folder)["data"]["keys"]
                except InvalidPath:
                    continue
                for key in keys:
                    (folders if key.endswith("/") else found).append(folder + key)
        return sorted(found)

    def leases_revoke(self, prefix: str) -> None:
        """Revoke every lease under a prefix, and wait for the backends."""
        path = f"sys/leases/revoke-prefix/{quote(prefix.strip('/'))}"
        with _asking(path, self._address):
            # A dead server should show itself in two seconds; this call may take a minute, so ask a short one first.
            self._ours.sys.is_sealed()
            self._ours.adapter.put(f"/v1/{path}", json={"sync": True}, timeout=(_CONNECT_SECONDS, _REVOKE_SECONDS))

    def lease_issue(self, token: str, path: str) -> tuple[str, str]:
        """Read a path that answers with a lease."""
        with _asking(path, self._address, hide=token, who="the agent's token"):
            answer = self._as(token).adapter.get(f"/v1/{quote(path.strip('/'))}")
        if not isinstance(answer, dict) or not answer.get("lease_id"):
            raise InvalidInput(f"Vault answers {path} without a lease", hint="name a path that issues credentials")
        return str(answer["lease_id"]), json.dumps(answer["data"])

    def read_as(self, token: str, path: str) -> tuple[bool, str]:
        """Read a path with somebody's token."""
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized

        if not token:
            raise InvalidInput("an empty token proves nothing")
        with _asking(path, self._address, hide=token):
            try:
                self._as(token).adapter.get(f"/v1/{quote(path.strip('/'))}")["data"]
            except (Forbidden, Unauthorized) as error:
                return False, f"{type(error).__name__}: {_reasons(error, token)}"
            except (InvalidPath, InvalidRequest) as error:
                # The token was let through to a path that holds nothing, or that wants to be asked otherwise.
                return True, f"{type(error).__name__}: {_reasons(error, token)}"
        return True, "200 OK"

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Any request as ourselves, for what has a file of its own. `NotFound` where the server has nothing there."""
        with _asking(path, self._address):
            answer = self._ours.adapter.request(method, f"/v1/{path}", json=body)
        return answer if isinstance(answer, dict) else {}

    @cached_property
    def _session(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter

        session = requests.Session()
        # Neither the environment's proxies nor a .netrc may come between us and the secrets manager.
        session.trust_env = False
        session.verify = str(self._ca_file) if self._ca_file else True  # hvac ignores its own when given a session
        session.mount("https://", HTTPAdapter(pool_maxsize=16))
        session.mount("http://", HTTPAdapter(pool_maxsize=16))
        return session

    @cached_property
    def _ours(self) -> Any:
        try:
            token = self._token_file.read_text().strip()
        except OSError as error:
            raise InvalidInput(
                f"{self._token_file}: {error.strerror}",
                hint="vault.token_file must hold Clawback's own token, mode 0600",
            ) from None
        if not token:
            raise InvalidInput(f"{self._token_file} is empty", hint="it must hold Clawback's own Vault token")
        return self._as(token)

    def _as(self, token: str) -> Any:
        import hvac

        return hvac.Client(self._address, token=token, session=self._session, timeout=(_CONNECT_SECONDS, _READ_SECONDS))


@contextmanager
def _asking(operation: str, address: str, *, hide: str = "", who: str = "us") -> Iterator[None]:
    """Turn what hvac and requests raise into ours. `from None`: their tracebacks hold requests, and those tokens."""
    import hvac.exceptions as answers
    import requests

    try:
        yield
    except ClawbackError:
        raise
    except requests.RequestException as error:
        raise Unreachable(
            f"Vault at {address} did not answer {operation} ({type(error).__name__})",
            hint="check that it is up and reachable; `clawback resume` tries again",
        ) from None
    except _NO_ANSWER as error:
        raise Unreachable(
            f"Vault at {address} answered {operation} with what is no answer to it ({type(error).__name__})",
            hint="check vault.address and what is in between; `clawback resume` tries again",
        ) from None
    except (
        answers.VaultDown,
        answers.VaultNotInitialized,
        answers.InternalServerError,
        answers.BadGateway,
        answers.RateLimitExceeded,
        answers.UnexpectedError,
    ) as error:
        raise Unreachable(
            f"Vault at {address} cannot serve {operation} now: {_reasons(error, hide)}",
            hint="a sealed server must be unsealed; `clawback resume` tries again",
        ) from None
    except (answers.Forbidden, answers.Unauthorized) as error:
        raise Refused(
            f"Vault refused {who} {operation}: {_reasons(error, hide)}",
            hint=f"{who} has no right to it, or is dead"
            if hide
            else "grant Clawback's own token this path; docs/permissions.md lists what it needs",
        ) from None
    except answers.InvalidPath as error:
        raise NotFound(f"Vault has nothing at {operation}: {_reasons(error, hide)}") from None
    except answers.VaultError as error:
        raise ClawbackError(f"Vault rejected {operation}: {_reasons(error, hide)}") from None


def _reasons(error: Any, hide: str) -> str:
    listed = getattr(error, "errors", None) or []
    text = "; ".join(str(reason).strip() for reason in (listed if isinstance(listed, list) else [listed]))
    if hide:
        text = text.replace(hide, "[redacted]")
    return text[:300] or type(error).__name__
