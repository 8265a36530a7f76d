"""The quarantine ladder's levels, and what one of them came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

__all__ = ["Enforcement", "Level", "LevelResult"]


class Level(IntEnum):
    """The quarantine ladder. Each call makes one level true; a hold is the set of levels that must stay true."""

    FREEZE = 1
    ISOLATE = 2
    RESTRICT = 3
    SEAL = 4
    STOP = 5

    @property
    def word(self) -> str:
        """The level as people write it: `freeze`, `isolate` …"""
        return self.name.lower()


class Enforcement(StrEnum):
    """How much of what was asked for was observed to hold."""

    FULL = "full"
    PARTIAL = "partial"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelResult:
    """What one level came to, as read back after the fact, never as intended.

    `observed` is a sentence for people ("4 of 4 processes frozen; connect from inside: ENETUNREACH"); `missing` names
    what was not enforced; `elapsed_ms` covers applying and reading back. `counts` is the same in numbers, as read back:

    processes, threads   alive at the reading
    frozen               processes of those that stand still
    sealed, walled       threads of those with the sealed filter, with Landlock's rules
    addresses            of interfaces inside the network namespace
    connections          sockets inside that have a peer
    drift                of what is missing, what applying the level again could mend
    uncut                parts of the network that are not cut
    leads_out            descriptors that lead out of the sandbox still, and sockets outside within reach
    secrets, unreadable  files under /run/secrets, those of them that read empty or are refused
    open                 descriptors and mappings of secrets and writable files, from before
    covered              secrets that lie under a cover of ours
    marks                mounts whose opens are refused
    limits               limits that are lowered

    A number that was not read is not there; 0 was seen to be none.
    """

    level: Level
    enforcement: Enforcement
    observed: str
    missing: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    elapsed_ms: float = 0.0
    at_ns: int = 0
