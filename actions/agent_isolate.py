"""Cut an agent off the network: nothing established survives and nothing new starts."""

from __future__ import annotations

from clawback.actions._ladder import ladder_action
from clawback.model import Level

__all__ = ["ACTION"]

ACTION = ladder_action(
    Level.ISOLATE,
    summary="Destroy the agent's connections and refuse it every new one.",
    scope="the network namespace of one agent; its connections are lost",
    openc2="deny",
    d3fend="D3-NI",
    reflex=True,
)
