"""Restrict an agent as far as can be taken back: calls denied, opens refused, secrets covered, limits lowered."""

from __future__ import annotations

from clawback.actions._ladder import ladder_action
from clawback.model import Level

__all__ = ["ACTION"]

ACTION = ladder_action(
    Level.RESTRICT,
    summary="Deny what the agent may still do, as far as release can give it back.",
    scope="one agent's file opens, secrets, limits and tools; host files are not changed",
    openc2="restrict",
    d3fend="D3-EI",
)
