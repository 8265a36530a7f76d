"""Evidence as the core collects it: under the state's folder, in nobody's way, and before anything is killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clawback.enforcement.core.parts import Parts
from clawback.enforcement.evidence import chain, collect
from clawback.errors import NotEnforced
from clawback.model import EvidenceBundle

__all__ = ["Snapshots"]


class Snapshots:
    """Takes no lock of the agent's: it only reads, while the next level is applied."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(
        self, agent: str, *, incident: str, memory: bool = False, transcripts: Sequence[str] = ()
    ) -> EvidenceBundle:
        """A bundle under `STATE/evidence/INCIDENT`, its manifest in the chain beside it."""
        root = self._parts.parameters.state / "evidence"
        box = self._parts.entry(agent).box
        bundle = collect(box, root, incident=incident, memory=memory, transcripts=transcripts)
        try:
            chain.append(root, Path(bundle.folder), bundle.sha256)
        except OSError as error:
            raise NotEnforced(
                f"the evidence of {agent} is in {bundle.folder}, and not in the chain: {error.strerror}",
                hint=f"make room in {root} and collect it again",
            ) from None
        return bundle
