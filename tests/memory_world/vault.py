"""Vault: tokens, leases, and its audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clawback.errors import Unreachable
from clawback.world import Audited, AuditLog
from clawback.world.vault_engines import Reissue

__all__ = ["MemoryVault", "MemoryVaultRecords"]


class MemoryVault:
    """Tokens that live until they are revoked; nothing of it is secret here."""

    def __init__(self) -> None:
        self.live: dict[str, tuple[str, dict[str, Any]]] = {}
        self.reissue = Reissue()
        self.down = False
        self.created = 0

    def _ask(self) -> None:
        if self.down:
            raise Unreachable("Vault does not answer")

    def add(self, accessor: str, value: str, meta: dict[str, str]) -> None:
        facts = {"policies": ["support"], "ttl": 60, "creation_ttl": 60, "num_uses": 0, "meta": meta}
        self.live[accessor] = (value, {**facts, "path": "auth/token/create"})

    def token_lookup(self, accessor: str) -> dict[str, Any] | None:
        self._ask()
        found = self.live.get(accessor)
        return found[1] if found else None

    def token_made(self, accessor: str) -> dict[str, Any] | None:
        return self.token_lookup(accessor)

    def token_revoke(self, accessor: str) -> None:
        self._ask()
        self.live.pop(accessor, None)

    def token_create(self, *, policies: list[str], ttl: str, meta: dict[str, str], **_limits: Any) -> tuple[str, str]:
        self._ask()
        self.created += 1
        accessor = f"acc-{self.created + 1}"
        self.add(accessor, f"value-{accessor}", meta)
        return f"value-{accessor}", accessor

    def token_find(self, meta: dict[str, str]) -> list[str]:
        self._ask()
        return [name for name, (_, facts) in self.live.items() if meta.items() <= facts["meta"].items()]

    def token_works(self, token: str) -> tuple[bool, str]:
        self._ask()
        accepted = any(value == token for value, _ in self.live.values())
        return accepted, "200" if accepted else "403"

    def leases(self, prefix: str) -> list[str]:
        self._ask()
        return []

    def leases_revoke(self, prefix: str) -> None:
        self._ask()

    def read_as(self, token: str, path: str) -> tuple[bool, str]:
        return self.token_works(token)


class MemoryVaultRecords:
    """What `MemoryVault` wrote down: nothing but its own tokens; `audited` are what an audit log would have."""

    def __init__(self, vault: MemoryVault) -> None:
        self.vault = vault
        self.audited: list[Audited] = []

    def audit(self) -> AuditLog | None:
        self.vault._ask()
        return AuditLog(entries=tuple(self.audited))

    def audit_hash(self, text: str) -> str:
        return f"hmac:{text}"

    def accessors(self) -> list[str]:
        self.vault._ask()
        return list(self.vault.live)

    def may(self, accessor: str, paths: Sequence[str]) -> dict[str, bool]:
        return dict.fromkeys(paths, accessor in self.vault.live)

    def lease(self, lease: str) -> dict[str, Any] | None:
        self.vault._ask()
        return None

    def lease_revoke(self, lease: str) -> None:
        self.vault._ask()

    def secret_ids(self, role: str) -> list[str]:
        return []

    def secret_id_destroy(self, role: str, accessor: str) -> None:
        self.vault._ask()
