"""What is wanted of a narrower policy, and what came of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from clawback.enforcement.policy.asked import Asked, pattern_of

__all__ = ["MOST_PATHS", "Use", "Wishes"]

MOST_PATHS = 64
"""Patterns in one rule; a rule that was used by more is not narrowed by path."""


@dataclass(slots=True)
class Wishes:
    """See `clawback.model.Narrowing`; `changes` and `left` grow as they are carried out."""

    deny: list[Asked] = field(default_factory=list)
    keep: list[Asked] | None = None
    files: list[str] = field(default_factory=list)
    drop: bool = False
    changes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Use:
    """How one rule was used: by requests alone it can be narrowed by method and path, by a blind tunnel it cannot."""

    calls: tuple[Asked, ...]
    blind: bool

    @property
    def ports(self) -> list[int]:
        """Each once, in order."""
        return sorted({call.port for call in self.calls})

    @property
    def methods(self) -> list[str]:
        """Of requests; empty where tunnels hide them."""
        return [] if self.blind else sorted({call.method for call in self.calls if not call.tunnel})

    @property
    def paths(self) -> list[str]:
        """Patterns for the requests' paths; empty where there are none, too many, or one that no pattern can say."""
        if self.blind:
            return []
        found = {pattern_of(call.path) for call in self.calls if not call.tunnel}
        return sorted(found) if "" not in found and len(found) <= MOST_PATHS else []
