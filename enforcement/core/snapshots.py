"""Evidence as the core collects it: under the state's folder, in nobody's way, and before anything is killed."""

from __future__ import annotations

from clawback.enforcement.core.parts import Parts
from clawback.enforcement.evidence import collect
from clawback.model import EvidenceBundle

__all__ = ["Snapshots"]


class Snapshots:
    """Takes no lock of the agent's: it only reads, while the next level is applied."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self, agent: str, *, incident: str) -> EvidenceBundle:
        """A bundle under `STATE/evidence/INCIDENT`."""
        return collect(self._parts.entry(agent).box, self._parts.parameters.state / "evidence", incident=incident)
