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
        facts = self._server.find("get", at(mount, "keys", key))
        if facts is None:
            return None
        return {
            "latest": int(facts["latest_version"]),
            "decrypts_from": int(facts["min_decryption_version"]),
            "encrypts_from": int(facts["min_encryption_version"]),
            "exportable": bool(facts.get("exportable")),
        }

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
        return str(self._do(mount, verb, key, {said: _TEXT})[field])

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
            except InvalidRequest as error:
                if _TOO_OLD not in str(error):
                    raise
                return False, reasons(error)
        right = data.get("plaintext") == _TEXT if verb == "decrypt" else data.get("valid") is True
        return right, "200 OK" if right else "200, and another text"

    def _do(self, mount: str, verb: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
        path = at(mount, verb, key)
        with self._server.asking(path):
            return dict(self._server.ask("post", path, body | self._context(mount, key))["data"])

    def _verbs(self, mount: str, key: str) -> tuple[str, str, str, str]:
        """How a probe is made, how it is taken, what it is called, and what the text is called."""
        facts = self._server.find("get", at(mount, "keys", key)) or {}
        if facts.get("supports_encryption"):
            return "encrypt", "decrypt", "ciphertext", "plaintext"
        if facts.get("supports_signing"):
            return "sign", "verify", "signature", "input"
        return "hmac", "verify", "hmac", "input"

    def _context(self, mount: str, key: str) -> dict[str, str]:
        facts = self._server.find("get", at(mount, "keys", key)) or {}
        return {"context": _TEXT} if facts.get("derived") else {}
