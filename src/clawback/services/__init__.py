"""Real servers run as supervised children on loopback: Prefect, and for rehearsal OpenBao and an AWS stand-in."""

from __future__ import annotations

from clawback.services.process import Service, free_port

__all__ = ["Service", "free_port"]
