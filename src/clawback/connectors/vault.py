"""HashiCorp Vault or OpenBao by hvac: `clawback.world.Vault`. Each engine's calls are in a file of their own."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clawback.connectors.vault_approle import AppRoleConnector
from clawback.connectors.vault_database import StaticRolesConnector
from clawback.connectors.vault_kv import KeyValueConnector
from clawback.connectors.vault_session import CONNECT_SECONDS, VaultSession, reasons
from clawback.connectors.vault_transit import TransitConnector
from clawback.connectors.vault_wrapping import WrappingConnector
from clawback.errors import InvalidInput
from clawback.world.vault_engines import Reissue

__all__ = ["VaultConnector"]

# Revoking a prefix waits for each lease's backend; a database may take its time over a thousand logins.
_REVOKE_SECONDS = 60.0
_MAX_LEASES = 10_000
_REMEMBERED = 50_000  # tokens
_MADE = ("meta", "path", "creation_time")  # not `orphan`: a child becomes one by its parent's revocation alone
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
    reissue      how long, and how often, what is issued anew may be used
    """

    def __init__(
        self, address: str, token_file: Path, *, ca_file: Path | None = None, reissue: Reissue | None = None
    ) -> None:
        self._server = server = VaultSession(address, token_file, ca_file=ca_file)
        self._reissue = reissue or Reissue()
        self._approle = AppRoleConnector(server)
        self._static_roles = StaticRolesConnector(server)
        self._transit = TransitConnector(server)
        self._kv = KeyValueConnector(server)
        self._wrapping = WrappingConnector(server)
        self._made: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._remembering = threading.Lock()

    @property
    def reissue(self) -> Reissue:
        """The bounds of what is issued anew."""
        return self._reissue

    @property
    def approle(self) -> AppRoleConnector:
        """AppRole logins."""
        return self._approle

    @property
    def static_roles(self) -> StaticRolesConnector:
        """Static roles of database engines."""
        return self._static_roles

    @property
    def transit(self) -> TransitConnector:
        """Keys of transit engines."""
        return self._transit

    @property
    def kv(self) -> KeyValueConnector:
        """Stored secrets."""
        return self._kv

    @property
    def wrapping(self) -> WrappingConnector:
        """Response wrapping."""
        return self._wrapping

    def prepare(self) -> None:
        """Load the library before an incident waits for it. Contacts nobody."""
        self._server.as_("none")

    def token_lookup(self, accessor: str) -> dict[str, Any] | None:
        """Facts of a token, None where the server no longer knows its accessor."""
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

        with self._server.asking("auth/token/lookup-accessor"):
            try:
                data = self._server.ours.auth.token.lookup_accessor(accessor)["data"]
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

    def token_made(self, accessor: str) -> dict[str, Any] | None:
        """From memory where it was looked up before: a server may hold thousands, and every walk asks about each."""
        with self._remembering:
            if (known := self._made.get(accessor)) is not None:
                self._made.move_to_end(accessor)
                return dict(known)
        facts = self.token_lookup(accessor)
        if facts is None:
            return None
        made = {name: facts[name] for name in _MADE}
        with self._remembering:
            self._made[accessor] = made
            while len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return dict(made)

    def token_revoke(self, accessor: str) -> None:
        """Revoke by accessor, children too."""
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

        with self._server.asking("auth/token/revoke-accessor"):
            try:
                self._server.ours.auth.token.revoke_accessor(accessor)
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
        with self._server.asking(path):
            auth = self._server.ours.adapter.post(f"/v1/{path}", json=body)["auth"]
        return str(auth["client_token"]), str(auth["accessor"])

    def token_find(self, meta: dict[str, str]) -> list[str]:
        """Accessors of live tokens with all of `meta`: lists every accessor, and looks up those not known yet."""
        from hvac.exceptions import InvalidPath

        with self._server.asking("auth/token/accessors"):
            try:
                accessors = self._server.ours.auth.token.list_accessors()["data"]["keys"]
            except InvalidPath:
                return []
        found = []
        for accessor in accessors:
            made = self.token_made(accessor)
            if made is None or not meta.items() <= made["meta"].items():
                continue
            if self.token_lookup(accessor) is not None:
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
        with self._server.asking("sys/leases/lookup"):
            while folders and len(found) < _MAX_LEASES:
                folder = folders.pop()
                try:
                    keys = self._server.ours.sys.list_leases(prefix=folder)["data"]["keys"]
                except InvalidPath:
                    continue
                for key in keys:
                    (folders if key.endswith("/") else found).append(folder + key)
        return sorted(found)

    def leases_revoke(self, prefix: str) -> None:
        """Revoke every lease under a prefix, and wait for the backends."""
        path = f"sys/leases/revoke-prefix/{quote(prefix.strip('/'))}"
        with self._server.asking(path):
            # A dead server should show itself in two seconds; this call may take a minute, so ask a short one first.
            self._server.ours.sys.is_sealed()
            self._server.ask("put", path, {"sync": True}, timeout=(CONNECT_SECONDS, _REVOKE_SECONDS))

    def lease_issue(self, token: str, path: str) -> tuple[str, str]:
        """Read a path that answers with a lease."""
        with self._server.asking(path, hide=token, who="the agent's token"):
            answer = self._server.as_(token).adapter.get(f"/v1/{quote(path.strip('/'))}")
        if not isinstance(answer, dict) or not answer.get("lease_id"):
            raise InvalidInput(f"Vault answers {path} without a lease", hint="name a path that issues credentials")
        return str(answer["lease_id"]), json.dumps(answer["data"])

    def read_as(self, token: str, path: str) -> tuple[bool, str]:
        """Read a path with somebody's token."""
        from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized

        if not token:
            raise InvalidInput("an empty token proves nothing")
        with self._server.asking(path, hide=token):
            try:
                self._server.as_(token).adapter.get(f"/v1/{quote(path.strip('/'))}")["data"]
            except (Forbidden, Unauthorized) as error:
                return False, f"{type(error).__name__}: {reasons(error, token)}"
            except (InvalidPath, InvalidRequest) as error:
                # The token was let through to a path that holds nothing, or that wants to be asked otherwise.
                return True, f"{type(error).__name__}: {reasons(error, token)}"
        return True, "200 OK"

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Any request as ourselves, for what has a file of its own. `NotFound` where the server has nothing there."""
        with self._server.asking(path):
            return self._server.ask(method, path, body)
