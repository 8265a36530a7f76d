"""A secret store."""

from __future__ import annotations

from clawback.model import CredentialRef

__all__ = ["MemorySecrets"]


class MemorySecrets:
    """Current values and what identifies them."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, tuple[CredentialRef, str]]] = {}
        self.next: dict[tuple[str, str], tuple[CredentialRef, str]] = {}
        self.before: dict[tuple[str, str], str] = {}
        self.begun: set[tuple[str, str]] = set()

    def current(self, agent: str, name: str) -> str:
        return self.held[agent][name][1]

    def old(self, agent: str, name: str) -> str | None:
        return self.before.get((agent, name))

    def staged(self, agent: str, name: str) -> str | None:
        found = self.next.get((agent, name))
        return found[1] if found else None

    def put(self, agent: str, ref: CredentialRef, value: str) -> None:
        self.held.setdefault(agent, {})[ref.name] = (ref, value)

    def stage(self, agent: str, ref: CredentialRef, value: str) -> None:
        self.next[agent, ref.name] = (ref, value)

    def begin(self, agent: str, name: str) -> bool:
        again = (agent, name) in self.begun
        self.begun.add((agent, name))
        return again

    def asked(self, agent: str, name: str) -> bool:
        return (agent, name) in self.begun

    def abandon(self, agent: str, name: str) -> None:
        self.next.pop((agent, name), None)
        self.begun.discard((agent, name))

    def staged_ref(self, agent: str, name: str) -> CredentialRef | None:
        found = self.next.get((agent, name))
        return found[0] if found else None

    def promote(self, agent: str, name: str, *, keep_old: bool = False) -> None:
        if staged := self.next.pop((agent, name), None):
            if not (keep_old and (agent, name) in self.before):
                self.before[agent, name] = self.current(agent, name)
            self.held[agent][name] = staged

    def discard(self, agent: str, name: str) -> None:
        self.before.pop((agent, name), None)

    def version(self, agent: str, name: str) -> str:
        return f"v-{abs(hash(self.current(agent, name)))}"

    def refs(self, agent: str) -> tuple[CredentialRef, ...]:
        return tuple(ref for ref, _ in self.held.get(agent, {}).values())
