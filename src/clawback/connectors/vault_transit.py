"""Keys of a Vault's transit engine: `clawback.world.vault_engines.Transit`."""

from __future__ import annotations

import base64
from typing import Any

from clawback.connectors.vault_session import VaultSession, at, reasons

__all__ = ["TransitConnector"]

_TEXT = base64.b64encode(b"clawback probe").decode()
_TOO_OLD = (
    "disallowed by policy"  # the server's words for a version below the minimum; its status says only "bad request"
)


class TransitConnector:
    """On a server's session."""

    def __init__(self, server: VaultSession) -> None:
        self._server = server

    def key(self, mount: str, key: str) -> dict[str, Any] | None:
        """Its versions and limits."""
        return self._server.find("get", at(mount, "keys", key), _facts)

    def rotate(self, mount: str, key: str) -> None:
        """One version more."""
        path = at(mount, "keys", key, "rotate")
        with self._server.asking(path):
            self._server.ask("post", path)

    def set_minimum(self, mount: str, key: str, *, decrypts_from: int, encrypts_from: int) -> None:
        """In one call: the server refuses a pair that contradicts itself."""
        path = at(mount, "keys", key, "config")
        body = {"min_decryption_version": decrypts_from, "min_encryption_version": encrypts_from}
        with self._server.asking(path):
            self._server.ask("post", path, body)

    def probe(self, mount: str, key: str) -> str:
        """By whatever the key can do."""
        verb, _, field, said = self._verbs(mount, key)
        path = at(mount, verb, key)
        with self._server.asking(path):
            return str(self._server.ask("post", path, {said: _TEXT} | self._context(mount, key))["data"][field])

    def takes(self, mount: str, key: str, probe: str) -> tuple[bool, str]:
        """The other way round."""
        from hvac.exceptions import InvalidRequest

        _, verb, field, said = self._verbs(mount, key)
        # What is verified is sent beside its proof; what is decrypted comes back.
        body = {field: probe} if verb == "decrypt" else {field: probe, said: _TEXT}
        path = at(mount, verb, key)
        with self._server.asking(path):
            try:
                data = self._server.ask("post", path, body | self._context(mount, key))["data"]
                right = bool(data["plaintext"] == _TEXT if verb == "decrypt" else data["valid"] is True)
            except InvalidRequest as error:
                if _TOO_OLD not in str(error):
                    raise
                return False, reasons(error)
        return right, "200 OK" if right else "200, and another text"

    def _verbs(self, mount: str, key: str) -> tuple[str, str, str, str]:
        """How a probe is made, how it is taken, what it is called, and what the text is called."""
        facts = self._server.find("get", at(mount, "keys", key), dict) or {}
        if facts.get("supports_encryption"):
            return "encrypt", "decrypt", "ciphertext", "plaintext"
        if facts.get("supports_signing"):
            return "sign", "verify", "signature", "input"
        return "hmac", "verify", "hmac", "input"

    def _context(self, mount: str, key: str) -> dict[str, str]:
        facts = self._server.find("get", at(mount, "keys", key), dict) or {}
        return {"context": _TEXT} if facts.get("derived") else {}


def _facts(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "latest": int(data["latest_version"]),
        "decrypts_from": int(data["min_decryption_version"]),
        "encrypts_from": int(data["min_encryption_version"]),
        "exportable": bool(data.get("exportable")),
    }
