"""Freeze and isolate: the intent is on disk before hold and effect; the kernel alone is told earlier (see `ahead`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import structlog

from clawback.action import Action, Context
from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.errors import ClawbackError, Unreachable
from clawback.journal import Journal
from clawback.model import (
    AgentInfo,
    AgentState,
    Finding,
    Incident,
    Level,
    LevelResult,
    Phase,
    Quarantine,
    Quarantining,
    Receipt,
    ReceiptState,
)
from clawback.response import Response, step_key
from clawback.world import Core, World

__all__ = ["Containment", "NotRecorded", "Step", "known", "steps_for"]

ACTOR = "watch"
LADDER: tuple[tuple[Level, Action[Any]], ...] = ((Level.FREEZE, FREEZE), (Level.ISOLATE, ISOLATE))

_log = structlog.get_logger()


class NotRecorded(Exception):
    """The agent was contained as asked, and the journal took no record of it. To be answered again."""


@dataclass(frozen=True, slots=True)
class Step:
    """One level for one agent instance."""

    level: Level
    action: Action[Any]
    params: Any


def steps_for(finding: Finding) -> tuple[Step, ...]:
    """The levels up to the finding's reflex, lowest first."""
    return tuple(
        Step(level, action, action.params(agent=finding.agent, instance=finding.instance, reason=reason_of(finding)))
        for level, action in LADDER
        if finding.reflex is not None and level <= finding.reflex
    )


def known(incident: Incident, step: Step) -> bool:
    """The journal holds this step already, however far it came."""
    key = step_key(step.action, step.params)
    return any(receipt.key == key for receipt in incident.receipts)


class Containment:
    """Contains one agent instance at a time. `without_record` counts how often that was without the journal."""

    def __init__(self, journal: Journal, world: World) -> None:
        self.without_record = 0
        self._journal = journal
        self._world = world

    def contain(
        self,
        incident: Incident,
        finding: Finding,
        info: AgentInfo,
        steps: tuple[Step, ...],
        begun: tuple[Receipt, ...] = (),
    ) -> tuple[Receipt, ...]:
        """Apply every level, then look at each; one that fails does not stop the next. `begun`: steps just intended."""
        began = time.time_ns()
        response = Response(self._journal, self._world, actor=ACTOR, incident_id=incident.id)
        try:
            made = self._at_once(incident, finding, steps, begun) if begun else {}
            receipts = tuple(
                made.get(step.level) or response.execute(step.action, step.params, phase=Phase.CONTAIN)
                for step in steps
            )
        except Exception as error:
            self.unrecorded(finding, info, error)
            raise NotRecorded(type(error).__name__) from error
        held = info.hold.levels if info.hold else ()
        for step, receipt in zip(steps, receipts, strict=True):
            if receipt.state is ReceiptState.VERIFIED and (receipt.verified_ns >= began or step.level in held):
                continue
            if receipt.state is ReceiptState.INTENDED:
                raise Unreachable(f"the core did not answer to {step.action.id}")
            # The journal holds this step as done and undone, or done long ago, and the agent is free: somebody released
            # it since. The record stays as it is; the agent does not.
            self._contain_again(incident, finding, step.level, receipt)
        return receipts

    def _at_once(
        self, incident: Incident, finding: Finding, steps: tuple[Step, ...], begun: tuple[Receipt, ...]
    ) -> dict[Level, Receipt]:
        """All levels by one order, and one flush for what came of them. Returned are those that were seen to hold; the
        others are left as intended or applied, for `Response` to go on with, level by level.
        """
        keys = {receipt.key for receipt in begun}
        mine = tuple(step for step in steps if step_key(step.action, step.params) in keys)
        try:
            made = self._world.core.quarantine(
                finding.agent,
                [step.level for step in mine],
                instance=finding.instance,
                reason=reason_of(finding),
                by=ACTOR,
                incident=incident.id,
            )
        except ClawbackError as error:
            _log.warning("not contained at once", agent=finding.agent, error=error.message)
            return {}
        with self._journal.together():
            return self.held(incident, mine, begun, made)

    def held(
        self, incident: Incident, steps: tuple[Step, ...], begun: tuple[Receipt, ...], made: Quarantine
    ) -> dict[Level, Receipt]:
        """Put on record what one order came to. Returned are the levels that were seen to hold."""
        keys = {receipt.key: receipt for receipt in begun}
        context = Context(incident=incident, world=_as_read(self._world, made.agent, made), actor=ACTOR)
        held: dict[Level, Receipt] = {}
        for step in steps:
            receipt = keys[step_key(step.action, step.params)]
            outcome = dict(step.action.apply(context, step.params, receipt.captured))
            seen = step.action.verify(context, step.params, receipt.captured, outcome)
            if seen.verified and seen.proof:
                held[step.level] = self._journal.held(receipt.id, outcome, seen.proof, seen.enforcement)
            else:
                self._journal.applied(receipt.id, outcome)
        return held

    def order(self, plans: Sequence[tuple[Incident, Finding]]) -> dict[str, Quarantine]:
        """One order for many agents: agent → what it came to, of those that the core held by it."""
        made = self._ordered([_order_for(finding, incident.id) for incident, finding in plans])
        return {one.agent.agent: one for one in made}

    def _ordered(self, orders: Sequence[Quarantining]) -> tuple[Quarantine, ...]:
        try:
            return self._world.core.quarantine_many(orders, by=ACTOR)
        except ClawbackError as error:  # each is answered by itself then, and says what it meets
            _log.warning("not contained together", agents=len(orders), error=error.message)
            return ()

    def intend_all(self, incident: Incident, steps: tuple[Step, ...], info: AgentInfo) -> tuple[Receipt, ...]:
        """The intents of those steps that the journal does not know yet."""
        return tuple(self._intend(incident, step, info) for step in steps if not known(incident, step))

    def _intend(self, incident: Incident, step: Step, info: AgentInfo) -> Receipt:
        """The intent, and what undoing needs, as the agent was read a moment ago."""
        context = Context(incident=incident, world=_as_read(self._world, info), actor=ACTOR)
        return self._journal.intend(
            incident,
            step_key(step.action, step.params),
            step.action.id,
            Phase.CONTAIN,
            step.params.model_dump(mode="json"),
            ACTOR,
            captured=dict(step.action.capture(context, step.params)),
        )

    def _contain_again(self, incident: Incident, finding: Finding, level: Level, receipt: Receipt) -> None:
        try:
            result = self._world.core.contain(
                finding.agent,
                level,
                instance=finding.instance,
                reason=reason_of(finding),
                by=ACTOR,
                incident=incident.id,
            )
        except Unreachable:
            raise
        except ClawbackError as error:
            _log.error("containment refused", agent=finding.agent, level=level.word, error=error.message)
            self.note(incident, f"agent.{level.word} refused", error.message)
            return
        self.note(
            incident,
            f"agent.{level.word} again",
            f"receipt {receipt.id} is {receipt.state}; now {result.enforcement}: {result.observed}",
        )

    def unrecorded(self, finding: Finding, info: AgentInfo, cause: Exception) -> None:
        """Contain straight at the core, for the journal takes no record now."""
        _log.critical(
            "the journal takes no record; containing without it", agent=finding.agent, error=type(cause).__name__
        )
        self.without_record += 1
        if info.state is not AgentState.RUNNING or finding.reflex is None:
            return
        held = info.hold.levels if info.hold else ()
        levels = [level for level, _ in LADDER if level <= finding.reflex and level not in held]
        if not levels:
            return
        try:
            made = self._world.core.quarantine(
                finding.agent, levels, instance=finding.instance, reason=reason_of(finding), by=ACTOR
            )
        except Unreachable:
            raise
        except ClawbackError as error:
            _log.error("containment refused", agent=finding.agent, error=error.message)
            return
        _tell(made)

    def unrecorded_all(self, meant: Sequence[tuple[Finding, AgentInfo]], cause: Exception) -> None:
        """The same for many agents, each with a reflex that may be made."""
        _log.critical(
            "the journal takes no record; containing without it", agents=len(meant), error=type(cause).__name__
        )
        self.without_record += len(meant)
        for made in self._ordered([_order_for(finding) for finding, _ in meant]):
            _tell(made)

    def note(self, incident: Incident, what: str, detail: str) -> None:
        """A line in the timeline; one that cannot be written is logged."""
        try:
            self._journal.note(incident, Phase.CONTAIN, what, detail)
        except Exception as error:
            _log.error("not noted", incident=incident.id, what=what, error=type(error).__name__)


class _AsRead:
    """The core, as it was read or answered a moment ago: asked again it would say the same, later."""

    def __init__(self, core: Core, info: AgentInfo, made: Quarantine | None) -> None:
        self._core = core
        self._info = info
        self._applied = {result.level: result for result in made.applied} if made else {}
        self._seen = {result.level: result for result in made.seen} if made else {}

    def agent(self, agent: str) -> AgentInfo:
        return self._info if agent == self._info.agent else self._core.agent(agent)

    def contain(self, agent: str, level: Level, **order: Any) -> LevelResult:
        return self._applied[level] if agent == self._info.agent else self._core.contain(agent, level, **order)

    def probe(self, agent: str, level: Level, *, instance: str = "") -> LevelResult:
        known = agent == self._info.agent and not instance
        return self._seen[level] if known else self._core.probe(agent, level, instance=instance)


def _as_read(world: World, info: AgentInfo, made: Quarantine | None = None) -> World:
    return replace(world, core=cast("Core", _AsRead(world.core, info, made)))


def _order_for(finding: Finding, incident: str = "") -> Quarantining:
    return Quarantining(
        agent=finding.agent,
        instance=finding.instance,
        levels=tuple(step.level for step in steps_for(finding)),
        reason=reason_of(finding),
        incident=incident,
    )


def _tell(made: Quarantine) -> None:
    for result in made.seen:
        _log.warning(
            "contained without a record",
            agent=made.agent.agent,
            level=result.level.word,
            enforcement=str(result.enforcement),
            observed=result.observed,
        )


def reason_of(finding: Finding) -> str:
    """Why, as the hold and the receipts say it."""
    return f"{finding.detector}: {finding.title}"[:500]
