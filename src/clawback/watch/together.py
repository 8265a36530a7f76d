"""Contain many agents at once: one record for all intents, one order for all agents, one record of what came of it.

In a storm each agent alone would cost two flushes, two calls and a dozen changes of hands, while the others wait. What
cannot be done so is left to be answered singly, which goes on with whatever of it is on record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from clawback.journal import Journal
from clawback.model import AgentInfo, Finding, Incident, IncidentStatus, Quarantine, Receipt
from clawback.watch.answer import Answer, frozen_ms
from clawback.watch.containment import Containment, Step, steps_for
from clawback.watch.deadline import Deadline

__all__ = ["Together"]

_EACH = 0.03  # seconds that each agent's record may take longer, with a processor that others want; usually 0.004

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One agent: its incident, and the steps that were intended just now."""

    finding: Finding
    info: AgentInfo
    incident: Incident
    opened: bool
    steps: tuple[Step, ...]
    begun: tuple[Receipt, ...]


class Together:
    """`playbook_of` and `drill` as `Reflex` has them."""

    def __init__(
        self,
        journal: Journal,
        containment: Containment,
        deadline: Deadline,
        playbook_of: Callable[[str], str],
        *,
        drill: bool,
    ) -> None:
        self._journal = journal
        self._containment = containment
        self._deadline = deadline
        self._playbook_of = playbook_of
        self._drill = drill

    def contain(self, meant: Sequence[tuple[Finding, AgentInfo]]) -> dict[str, Answer]:
        """Agent → what was done, of those in whom every level was seen to hold. One finding of each agent, each with a
        reflex that may be made; frozen already, for here the record waits for nobody.
        """
        plans = self._recorded(meant)
        if not plans:
            return {}
        made = self._containment.order([(plan.incident, plan.finding) for plan in plans.values()])
        answers: dict[str, Answer] = {}
        try:
            with self._journal.together():
                for agent, plan in plans.items():
                    if agent in made and (answer := self._answered(plan, made[agent])):
                        answers[agent] = answer
        except Exception as error:
            _log.error("not recorded together", agents=len(made), error=type(error).__name__)
            return {}
        return answers

    def _answered(self, plan: _Plan, made: Quarantine) -> Answer | None:
        held = self._containment.held(plan.incident, plan.steps, plan.begun, made)
        if len(held) < len(plan.steps):
            return None
        receipts = tuple(held[step.level] for step in plan.steps)
        return Answer(
            outcome="contained",
            incident=plan.incident.id,
            opened=plan.opened,
            receipts=receipts,
            frozen_ms=frozen_ms(receipts, plan.finding),
            drill=self._drill or "drill" in plan.info.tags,
        )

    def _recorded(self, meant: Sequence[tuple[Finding, AgentInfo]]) -> dict[str, _Plan]:
        plans: dict[str, _Plan] = {}
        try:
            with (
                self._deadline.armed(
                    lambda: self._containment.unrecorded_all(meant, TimeoutError()), more=len(meant) * _EACH
                ),
                self._journal.together(),
            ):
                # In order of their names: two watches that lock rows of one database must not wait for each other.
                for finding, info in sorted(meant, key=lambda one: one[0].agent):
                    steps = steps_for(finding)
                    drill = self._drill or "drill" in info.tags
                    incident, opened = self._journal.open_or_join(
                        finding, playbook=self._playbook_of(finding.detector), drill=drill
                    )
                    if incident.status is not IncidentStatus.OPEN:
                        continue
                    begun = self._containment.intend_all(incident, steps, info)
                    if len(begun) == len(steps):
                        plans[finding.agent] = _Plan(
                            finding=finding, info=info, incident=incident, opened=opened, steps=steps, begun=begun
                        )
        except Exception as error:
            _log.error("not recorded together", agents=len(meant), error=type(error).__name__)
            self._containment.unrecorded_all(meant, error)
            return {}
        return plans
