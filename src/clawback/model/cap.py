"""How many agents automation may contain in a minute, and a person's word that it may contain more."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Override"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """For a while another number stands: `per_minute` agents, or any number where it is 0."""

    id: str
    per_minute: int
    reason: str
    by: str
    set_ns: int
    until_ns: int
