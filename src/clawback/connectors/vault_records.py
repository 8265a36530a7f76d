"""What Vault or OpenBao wrote down about who issued what: `clawback.world.VaultRecords`.

The server lists no children of a token. Its audit device does: each request with the HMAC of the accessor that made
it, each answer with the HMAC of the accessor that it issued. The HMACs' key stays in the server, which is asked for the
HMAC of what we know (`sys/audit-hash`). The file is read from its end, as far as a bound allows.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from clawback.connectors.vault import VaultConnector
from clawback.errors import ClawbackError, NotFound, Refused, Unreachable
from clawback.world import Audited, AuditLog

__all__ = ["VaultRecordsConnector"]

_MAX_BYTES = 64 << 20
_MAX_LINE_BYTES = 1 << 20
_MAX_ENTRIES = 200_000
_CHUNK = 1 << 20
_HEAD = 200  # holds the first entry's time
_MAX_ACCESSORS = 10_000
_MAX_TEXT = 512
_MAX_HASHES = 20_000
_FIXED = "clawback: is the key the same?"


class VaultRecordsConnector:
    """Beside a `VaultConnector`, by its connections and rights.

    audit_log      file of an audit device of type `file`, which we must be able to read; None: there is none
    audit_device   that device's path in the server, `file` unless it was named otherwise
    """

    def __init__(self, vault: VaultConnector, *, audit_log: Path | None = None, audit_device: str = "file") -> None:
        self._vault = vault
        self._audit_log = audit_log
        self._audit_device = audit_device
        self._reading = threading.Lock()
        self._place = (0, 0, b"")
        self._began = self._at = 0
        self._rest = b""
        self._entries: list[Audited] = []
        # Of the device's key: what it makes of a fixed text, and of others by their digest. None: to be asked again.
        self._key: str | None = None
        self._hashes: tuple[str, dict[bytes, str]] = ("", {})

    def audit(self) -> AuditLog | None:
        """The audit device's file, from its end; what was read before is remembered, and what is new is added."""
        if self._audit_log is None:
            return None
        self._key = None
        try:
            with self._reading, self._audit_log.open("rb") as file:
                return self._read(file)
        except OSError as error:
            raise Unreachable(
                f"{self._audit_log}: {error.strerror}", hint="vault.audit_log must be readable by Clawback"
            ) from None

    def _read(self, file: BinaryIO) -> AuditLog:
        status = os.fstat(file.fileno())
        # A log that is cut off in place and grown again begins otherwise.
        place = (status.st_dev, status.st_ino, file.read(_HEAD))
        if place != self._place or status.st_size < self._at:  # rotated, or cut off: it is another log
            self._place, self._entries, self._rest = place, [], b""
            self._began = self._at = max(0, status.st_size - _MAX_BYTES)
            file.seek(self._at)
            if self._at:
                self._at += len(file.readline())  # begins in the middle
        file.seek(self._at)
        while chunk := file.read(_CHUNK):
            self._at += len(chunk)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self._rest = self._rest[: _MAX_LINE_BYTES + 1]
            self._entries += [entry for entry in map(_entry, lines) if entry is not None]
        cut = f"the first {self._began} bytes of {self._audit_log} were not read" if self._began else ""
        if len(self._entries) > _MAX_ENTRIES:
            cut = f"of {self._audit_log} only the newest {_MAX_ENTRIES} issued credentials were followed"
        return AuditLog(entries=tuple(self._entries[-_MAX_ENTRIES:]), cut=cut)

    def audit_hash(self, text: str) -> str:
        """The HMAC by which the device writes this text.

        It is asked for once, while the device has the same key: a device that is enabled anew has another. Whether it
        is the same is looked at once for each reading of the log.
        """
        key = self._key
        if key is None:
            key = self._key = self._ask_hash(_FIXED)
        hashes = self._hashes
        if hashes[0] != key or len(hashes[1]) > _MAX_HASHES:
            hashes = self._hashes = (key, {})
        known = hashes[1]  # an answer to who asked before the key changed is kept with the old key's
        digest = hashlib.sha256(text.encode()).digest()
        if digest not in known:
            known[digest] = self._ask_hash(text)
        return known[digest]

    def _ask_hash(self, text: str) -> str:
        path = f"sys/audit-hash/{quote(self._audit_device.strip('/'))}"
        return str(self._vault.ask("POST", path, {"input": text})["data"]["hash"])

    def accessors(self) -> Sequence[str]:
        """Of all live tokens."""
        return self._listed("auth/token/accessors")[:_MAX_ACCESSORS]

    def may(self, accessor: str, paths: Sequence[str]) -> Mapping[str, bool]:
        """By `sys/capabilities-accessor`, which counts all that the token's policies and identity grant."""
        asked = {"accessor": accessor, "paths": list(paths)}
        data = self._vault.ask("POST", "sys/capabilities-accessor", asked)["data"]
        return {path: bool({"root", "create", "update"} & set(data.get(path, ()))) for path in paths}

    def lease(self, lease: str) -> dict[str, Any] | None:
        """One lease's times."""
        try:
            data = self._vault.ask("PUT", "sys/leases/lookup", {"lease_id": lease})["data"]
        except (Refused, Unreachable):
            raise
        except ClawbackError as error:  # it answers 400 to what it does not know
            if isinstance(error, NotFound) or "invalid lease" in error.message:
                return None
            raise
        return {"ttl": int(data.get("ttl") or 0), "expire_time": str(data.get("expire_time") or "")}

    def lease_revoke(self, lease: str) -> None:
        """Revoke one lease, synchronously."""
        if self.lease(lease) is not None:
            self._vault.ask("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})

    def secret_ids(self, role: str) -> Sequence[str]:
        """Accessors of an AppRole's secret-ids."""
        return self._listed(f"{quote(role.strip('/'))}/secret-id")

    def secret_id_destroy(self, role: str, accessor: str) -> None:
        """Destroy one."""
        if accessor in self.secret_ids(role):
            path = f"{quote(role.strip('/'))}/secret-id-accessor/destroy"
            self._vault.ask("POST", path, {"secret_id_accessor": accessor})

    def _listed(self, path: str) -> list[str]:
        try:
            return [str(key) for key in self._vault.ask("LIST", path)["data"]["keys"]]
        except NotFound:
            return []


def _entry(line: bytes) -> Audited | None:
    """An answered request that issued something; None for every other line, and for one that is not what it should be.

    A login writes what it issued under the new token's own name: the token that asked is none.
    """
    if len(line) > _MAX_LINE_BYTES or not _may_issue(line):
        return None
    try:
        raw = json.loads(line)
        request, response = raw["request"], raw.get("response") or {}
        if raw.get("error") or raw.get("type") != "response":
            return None
        data, secret = response.get("data") or {}, response.get("secret") or {}
        auth = response.get("auth") or {}
        token = auth.get("accessor") or (response.get("wrap_info") or {}).get("wrapped_accessor")
        found = {
            "batch_hash": _text(auth.get("client_token")) if auth.get("token_type") == "batch" else "",
            "token_hash": _text(token),
            "lease": _text(secret.get("lease_id")),
            "secret_id_hash": _text(data.get("secret_id")),
            "secret_id_accessor_hash": _text(data.get("secret_id_accessor")),
        }
        if not any(found.values()):
            return None
        return Audited(
            time_ns=int(datetime.fromisoformat(str(raw["time"])).timestamp() * 1e9),
            # What the request came with, not what it was answered with: a login came with nothing.
            actor_hash=_text(request.get("client_token_accessor")),
            path=_text(request.get("path")),
            login_hash=_text((request.get("data") or {}).get("secret_id")) if auth else "",
            ttl_seconds=int(auth.get("token_ttl") or 0) if found["batch_hash"] else 0,
            actor_token_hash=_text(request.get("client_token")),
            **found,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _may_issue(line: bytes) -> bool:
    """Worth parsing: most lines are reads, and parsing is what takes time."""
    named = (b'"lease_id"', b'"secret_id_accessor"', b'"wrapped_accessor"', b'"batch"')
    return b'"response"' in line and (line.count(b'"accessor"') > 1 or any(name in line for name in named))


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else ""
