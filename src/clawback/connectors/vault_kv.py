"""Secrets that a Vault only stores, KV version 2: `clawback.world.vault_engines.KeyValue`."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from clawback.connectors.vault_session import VaultSession, at, reasons
from clawback.errors import InvalidInput

__all__ = ["KeyValueConnector"]


class KeyValueConnector:
    """On a server's session."""

    def __init__(self, server: VaultSession) -> None:
        self._server = server

    def versions(self, mount: str, path: str) -> dict[int, bool] | None:
        """Version → whether it can be read."""
        return self._server.find("get", _at(mount, "metadata", path), _readable)

    def put(self, mount: str, path: str, data: dict[str, Any], *, after: int) -> int:
        """All of the secret, as a new version."""
        return self._put("post", mount, path, data, after)

    def patch(self, mount: str, path: str, data: dict[str, Any], *, after: int) -> int:
        """Some fields of the secret; the others are carried over by the server."""
        return self._put("patch", mount, path, data, after, headers={"Content-Type": "application/merge-patch+json"})

    def delete(self, mount: str, path: str, versions: list[int]) -> None:
        """So that it can be undone."""
        self._ask(_at(mount, "delete", path), {"versions": versions})

    def undelete(self, mount: str, path: str, versions: list[int]) -> None:
        """Undo `delete`."""
        self._ask(_at(mount, "undelete", path), {"versions": versions})

    def read_as(self, token: str, mount: str, path: str, version: int) -> tuple[dict[str, Any] | None, str]:
        """With somebody's token, or our own where it is empty."""
        from hvac.exceptions import Forbidden, InvalidPath, Unauthorized

        where = _at(mount, "data", path)
        with self._server.asking(where, hide=token):
            try:
                return dict(
                    self._server.ask("get", where, token=token, params={"version": version})["data"]["data"]
                ), "200 OK"
            except (Forbidden, Unauthorized) as error:
                return None, f"{type(error).__name__}: {reasons(error, token)}"
            except InvalidPath:  # how a deleted version is answered, and one that never was
                return None, "404, it is deleted"

    def _put(self, method: str, mount: str, path: str, data: dict[str, Any], after: int, **more: Any) -> int:
        where = _at(mount, "data", path)
        with self._server.asking(where):
            return int(
                self._server.ask(method, where, {"data": data, "options": {"cas": after}}, **more)["data"]["version"]
            )

    def _ask(self, where: str, body: dict[str, Any]) -> None:
        with self._server.asking(where):
            self._server.ask("post", where, body)


def _at(mount: str, what: str, path: str) -> str:
    """Unlike elsewhere a path has folders here."""
    if not path.strip("/"):
        raise InvalidInput(f"an empty path at the mount {mount}")
    return f"{at(mount, what)}/{quote(path.strip('/'))}"


def _readable(data: dict[str, Any]) -> dict[int, bool]:
    return {
        int(number): not (version["destroyed"] or version["deletion_time"])
        for number, version in data["versions"].items()
    }
