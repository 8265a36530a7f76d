"""How long, and how much, one agent may take."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds. `head` bounds how slowly a request's head may come, `idle` silence in a body or tunnel."""

    connections: int = 256  # of one agent
    head: float = 15.0
    keep_alive: float = 75.0
    idle: float = 300.0
    linger: float = 2.0  # after an answer that ends the connection, for what the agent is still sending
    handshake: float = 10.0  # of TLS, either side
