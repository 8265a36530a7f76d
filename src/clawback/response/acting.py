"""What making a step and undoing one share: whose incident it is, who acts, on which world, by which rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clawback.action import Action, Context, Params, Plan, Verification
from clawback.config import ApprovalSettings
from clawback.errors import NotFound
from clawback.journal import Journal
from clawback.model import Incident, Receipt
from clawback.response.reach import reach
from clawback.world import World

__all__ = ["Acting", "observed"]


class Acting:
    """One incident's way to act. `actor` stands on every receipt.

    `actions` finds an action by id, for reverting (the catalogue's where none is given). `without_evidence` is the
    logged reason of somebody who lets credentials be rotated and processes be killed before evidence was collected.
    `approvals` are the rules by which steps wait for a person; none: no step does.
    """

    def __init__(
        self,
        journal: Journal,
        world: World,
        actor: str,
        incident_id: str,
        *,
        actions: Mapping[str, Action[Any]] | None = None,
        without_evidence: str = "",
        approvals: ApprovalSettings | None = None,
    ) -> None:
        self.journal = journal
        self.world = world
        self.actor = actor
        self.incident_id = incident_id
        self._actions = actions
        self._without_evidence = without_evidence
        self._approvals = approvals

    def plan(self, action: Action[Any], params: Params) -> Plan:
        """A dry run: reads the world, touches neither it nor the journal. Raises what the action raises.

        Whoever is asked for consent is shown how far the incident reaches too.
        """
        context = self.context()
        plan = action.plan(context, params)
        return replace(plan, checks=(*plan.checks, *reach(context.incident))) if action.consent else plan

    def action(self, name: str) -> Action[Any]:
        """The action of this id. `NotFound` for one that is in no catalogue."""
        actions = self._actions
        if actions is None:
            from clawback.catalog import load  # walks the folders; only reverting needs it

            actions = self._actions = load().actions
        if name not in actions:
            raise NotFound(f"no action {name[:80]!a} in the catalogue", hint="`clawback catalog` lists them")
        return actions[name]

    def context(self) -> Context:
        """What actions are given, as things stand."""
        incident = self.journal.incident(self.incident_id)
        return Context(
            incident=incident,
            world=self.world,
            actor=self.actor,
            history=lambda agent: self.journal.of_agent(agent, drill=incident.drill),
            approvals=lambda: self.journal.approvals(incident=incident.id),
            reread=lambda: self.journal.incident(self.incident_id),
            other=self._other,
        )

    def _other(self, incident: str) -> Incident | None:
        try:
            return self.journal.incident(incident)
        except NotFound:
            return None

    def _current(self, receipt: Receipt) -> Receipt:
        for current in self.journal.incident(self.incident_id).receipts:
            if current.id == receipt.id:
                return current
        raise NotFound(f"receipt {receipt.id} is not of {self.incident_id}")


def observed(verification: Verification) -> bool:
    """A claim without a proof is none."""
    return verification.verified and bool(verification.proof.strip())
