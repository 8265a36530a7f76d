"""What agents are given by way of the gateway, as the core that gives it must know it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BUNDLE", "PLACEHOLDER"]

BUNDLE = Path("gateway", "bundle.pem")
"""Below the state folder: the certificates that an agent is to trust."""

PLACEHOLDER = "clawback:resolve:"
"""Followed by a credential's name: what an agent holds instead of its value."""
