"""What a playbook is handed: its calls become journalled steps, made here and now in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clawback.action import Action, Params
from clawback.model import Incident, Phase, Receipt
from clawback.response.response import Response

__all__ = ["Responder"]


class Responder:
    """`clawback.playbook.Respond`, by way of the journal and nothing else."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self._phase: Phase | None = None

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Enter a phase; leaving it returns to the one around it."""
        before, self._phase = self._phase, phase
        self.response.journal.enter(self.response.incident_id, phase)
        try:
            yield
        finally:
            self._phase = before

    def __call__(self, action: Action[Any], params: Params, *, after: tuple[Receipt, ...] = ()) -> Receipt:
        """Run the action, or adopt what the journal already holds."""
        return self.make(action, params, self._phase or action.phase, after)

    def make(self, action: Action[Any], params: Params, phase: Phase, after: tuple[Receipt, ...]) -> Receipt:
        """One step; an orchestrator puts itself in between here."""
        return self.response.execute(action, params, phase=phase, after=after)

    def incident(self) -> Incident:
        """The incident as it stands now."""
        return self.response.journal.incident(self.response.incident_id)
