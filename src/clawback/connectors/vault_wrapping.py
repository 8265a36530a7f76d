"""Response wrapping of a Vault: `clawback.world.vault_engines.Wrapping`."""

from __future__ import annotations

from typing import Any

from clawback.connectors.vault_session import VaultSession, reasons
from clawback.errors import InvalidInput

__all__ = ["WrappingConnector"]

_NOT_THERE = "wrapping token is not valid"  # the server's words; its status says only "bad request"


class WrappingConnector:
    """On a server's session."""

    def __init__(self, server: VaultSession) -> None:
        self._server = server

    def wrap(self, data: dict[str, str], *, ttl: int) -> tuple[str, str]:
        """By `sys/wrapping/wrap`, which wraps what it is given."""
        with self._server.asking("sys/wrapping/wrap"):
            info = self._server.ask("post", "sys/wrapping/wrap", data, headers={"X-Vault-Wrap-TTL": f"{ttl}s"})[
                "wrap_info"
            ]
            return str(info["token"]), str(info["accessor"])

    def waits(self, token: str) -> tuple[bool, str]:
        """By `sys/wrapping/lookup`, which spends nothing."""
        found, answer = self._with(token, "lookup")
        return found is not None and bool(found["creation_path"]), answer

    def unwrap(self, token: str) -> tuple[dict[str, Any] | None, str]:
        """By `sys/wrapping/unwrap`."""
        return self._with(token, "unwrap")

    def _with(self, token: str, verb: str) -> tuple[dict[str, Any] | None, str]:
        from hvac.exceptions import Forbidden, InvalidRequest

        if not token:
            raise InvalidInput("an empty wrapping token proves nothing")
        path = f"sys/wrapping/{verb}"
        with self._server.asking(path, hide=token):
            try:
                return dict(self._server.ask("post", path, {"token": token})["data"]), "200 OK"
            except (Forbidden, InvalidRequest) as error:
                if _NOT_THERE not in str(error):
                    raise
                return None, reasons(error, token)
