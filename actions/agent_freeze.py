"""Freeze an agent's whole process tree: not one more instruction runs, and nothing in memory is lost."""

from __future__ import annotations

from clawback.actions._ladder import ladder_action
from clawback.model import Level

__all__ = ["ACTION"]

ACTION = ladder_action(
    Level.FREEZE,
    summary="Freeze every process of the agent and keep it frozen.",
    scope="all processes in one agent's cgroup; nothing outside it",
    openc2="contain",
    d3fend="D3-PS",
    reflex=True,
)
