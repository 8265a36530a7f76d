"""AppRole logins of a Vault: `clawback.world.vault_engines.AppRole`."""

from __future__ import annotations

import json
from typing import Any

from clawback.connectors.vault_session import VaultSession, at, reasons
from clawback.errors import ClawbackError, InvalidInput

__all__ = ["AppRoleConnector"]


class AppRoleConnector:
    """On a server's session."""

    def __init__(self, server: VaultSession) -> None:
        self._server = server

    def role(self, mount: str, role: str) -> dict[str, Any] | None:
        """Its id and bounds."""
        facts = self._server.find("get", _at(mount, role), _bounds)
        named = self._server.find("get", _at(mount, role, "role-id"), lambda data: str(data["role_id"]))
        return None if facts is None or named is None else facts | {"role_id": named}

    def secret_ids(self, mount: str, role: str) -> list[str]:
        """Accessors."""
        found = self._server.find("list", _at(mount, role, "secret-id"), lambda data: [str(x) for x in data["keys"]])
        return found or []

    def facts(self, mount: str, role: str, accessor: str) -> dict[str, Any] | None:
        """By accessor."""
        path = _at(mount, role, "secret-id-accessor", "lookup")
        return self._server.find("post", path, _facts, {"secret_id_accessor": accessor})

    def facts_of(self, mount: str, role: str, secret_id: str) -> dict[str, Any] | None:
        """By value."""
        path = _at(mount, role, "secret-id", "lookup")
        with self._server.asking(path, hide=secret_id):
            # A value that is unknown is answered with an empty 204 here, not with an error.
            data = self._server.ask("post", path, {"secret_id": secret_id}).get("data")
            return _facts(data) if data else None

    def issue(
        self, mount: str, role: str, *, ttl: int, uses: int, meta: dict[str, str], cidrs: tuple[list[str], list[str]]
    ) -> tuple[str, str]:
        """A new one."""
        path = _at(mount, role, "secret-id")
        body: dict[str, Any] = {"metadata": json.dumps(meta), "ttl": f"{ttl}s", "num_uses": uses}
        # An empty list would be taken for "no limit", which the role's own may forbid.
        body |= {key: listed for key, listed in zip(("cidr_list", "token_bound_cidrs"), cidrs, strict=True) if listed}
        with self._server.asking(path):
            data = self._server.ask("post", path, body)["data"]
            return str(data["secret_id"]), str(data["secret_id_accessor"])

    def destroy(self, mount: str, role: str, accessor: str) -> None:
        """End it; the server answers 500 for one that it does not know, so it is asked first, and after."""
        path = _at(mount, role, "secret-id-accessor", "destroy")
        if self.facts(mount, role, accessor) is None:
            return
        try:
            with self._server.asking(path):
                self._server.ask("post", path, {"secret_id_accessor": accessor})
        except ClawbackError:
            if self.facts(mount, role, accessor) is not None:
                raise

    def logs_in(self, mount: str, role_id: str, secret_id: str) -> tuple[bool, str]:
        """Log in, and revoke what that gives."""
        from hvac.exceptions import Forbidden, InvalidRequest, Unauthorized

        if not secret_id:
            raise InvalidInput("an empty secret-id proves nothing")
        path = f"auth/{at(mount, 'login')}"
        with self._server.asking(path, hide=secret_id):
            try:
                # Without a token of ours: a login is made by somebody who has none.
                answer = self._server.as_("").adapter.post(
                    f"/v1/{path}", json={"role_id": role_id, "secret_id": secret_id}
                )
            except (Forbidden, InvalidRequest, Unauthorized) as error:
                return False, f"{type(error).__name__}: {reasons(error, secret_id)}"
            auth = answer["auth"]
            if auth.get("accessor"):  # a batch token has none, and nothing revokes it
                self._server.as_(auth["client_token"]).auth.token.revoke_self()
        return True, "200 OK"


def _at(mount: str, role: str, *parts: str) -> str:
    return f"auth/{at(mount, 'role', role, *parts)}"


def _bounds(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "ttl": int(data["secret_id_ttl"] or 0),
        "uses": int(data["secret_id_num_uses"] or 0),
        "kind": str(data.get("token_type") or "default"),
    }


def _facts(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "accessor": str(data["secret_id_accessor"]),
        "ttl": int(data.get("secret_id_ttl") or 0),
        "uses": int(data.get("secret_id_num_uses") or 0),
        "meta": dict(data.get("metadata") or {}),
        "cidrs": [list(data.get("cidr_list") or []), list(data.get("token_bound_cidrs") or [])],
    }
