"""Static roles of a Vault's database engine: `clawback.world.vault_engines.StaticRoles`."""

from __future__ import annotations

from typing import Any

from clawback.connectors.vault_session import VaultSession, at

__all__ = ["StaticRolesConnector"]

# Vault changes the password at the database before it answers.
_ROTATE_SECONDS = 15.0


class StaticRolesConnector:
    """On a server's session."""

    def __init__(self, server: VaultSession) -> None:
        self._server = server

    def role(self, mount: str, role: str) -> dict[str, Any] | None:
        """What it is, without the password."""
        return self._server.find("get", at(mount, "static-roles", role), _facts)

    def credential(self, mount: str, role: str) -> tuple[str, str]:
        """Its login as it is."""
        path = at(mount, "static-creds", role)
        with self._server.asking(path):
            data = self._server.ask("get", path)["data"]
            return str(data["username"]), str(data["password"])

    def rotate(self, mount: str, role: str) -> None:
        """Give it another password."""
        path = at(mount, "rotate-role", role)
        with self._server.asking(path):
            self._server.ask("post", path, timeout=_ROTATE_SECONDS)


def _facts(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "user": str(data["username"]),
        "rotated": str(data["last_vault_rotation"] or ""),
        "period": int(data.get("rotation_period") or 0),
    }
