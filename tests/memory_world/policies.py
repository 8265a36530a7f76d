"""Policy versions, decided by the real text's own code."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from clawback.enforcement.policy.narrowing import draft
from clawback.errors import NotFound
from clawback.model import Attempt, Decision, Draft, Narrowing, PolicyVersion

__all__ = ["MemoryPolicies"]


class MemoryPolicies:
    """A version store; `stuck` makes restore record a version that the engine does not take up."""

    def __init__(self) -> None:
        self.texts: dict[str, list[tuple[PolicyVersion, str]]] = {}
        self.deciding: dict[str, int] = {}
        self.stuck = False

    def _at(self, policy: str, version: int) -> tuple[PolicyVersion, str]:
        for found in self.texts.get(policy, []):
            if found[0].version == version:
                return found
        raise NotFound(f"no version {version} of {policy}")

    def versions(self, policy: str) -> tuple[PolicyVersion, ...]:
        if policy not in self.texts:
            raise NotFound(f"no policy {policy}")
        return tuple(version for version, _ in self.texts[policy])

    def read(self, policy: str, version: int) -> str:
        return self._at(policy, version)[1]

    def active(self, policy: str) -> PolicyVersion:
        return self._at(policy, self.deciding.get(policy, 0))[0]

    def put(
        self, policy: str, text: str, *, author: str, reason: str, known_good: bool = False, incident: str = ""
    ) -> PolicyVersion:
        before = self.texts.setdefault(policy, [])
        old = before[-1][1] if before else ""
        if before and old == text and self.deciding.get(policy) == before[-1][0].version:
            return self.mark_known_good(policy, len(before), author=author) if known_good else before[-1][0]
        new = PolicyVersion(
            policy=policy,
            version=len(before) + 1,
            sha256=sha256(text.encode()).hexdigest(),
            author=author,
            reason=reason,
            created_ns=time.time_ns(),
            known_good=known_good,
            incident=incident,
            diff="".join(difflib.unified_diff(old.splitlines(keepends=True), text.splitlines(keepends=True))),
        )
        before.append((new, text))
        if not self.stuck:
            self.deciding[policy] = new.version
        return new

    def mark_known_good(self, policy: str, version: int, *, author: str) -> PolicyVersion:
        index = version - 1
        marked = replace(self.texts[policy][index][0], known_good=True)
        self.texts[policy][index] = (marked, self.texts[policy][index][1])
        return marked

    def restore(self, policy: str, version: int, *, author: str, reason: str, incident: str = "") -> PolicyVersion:
        text = self.read(policy, version)
        if self.active(policy).sha256 == sha256(text.encode()).hexdigest():
            return self.active(policy)
        return self.put(policy, text, author=author, reason=reason, incident=incident)

    def draft(self, policy: str, version: int, narrowing: Narrowing, *, attempts: Sequence[Attempt] = ()) -> Draft:
        """By the real text's own code: it needs no gateway."""
        return draft(policy, version, self.read(policy, version), narrowing, tuple(attempts))

    def decide(self, policy: str, attempt: Attempt) -> Decision:
        """By the real text's own code, and whatever anything drafts."""
        active = self.active(policy)
        text = self.read(policy, active.version)
        (said,) = draft(policy, active.version, text, Narrowing(), (attempt,)).decisions
        return said
