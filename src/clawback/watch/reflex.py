"""Answer a finding at once: record it, freeze and isolate the agent, and say which incident is now the playbook's.

Nothing here waits for anything that is not needed to stop the agent. Where the journal fails, the agent is contained
without it and the record follows when it can: containment first.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import structlog

from clawback.actions.policy_validate import ACTION as VALIDATE
from clawback.errors import ClawbackError, NotFound
from clawback.journal import Journal
from clawback.model import AgentInfo, AgentState, Finding, Incident, IncidentStatus, Level, Phase, Receipt, ReceiptState
from clawback.watch.ahead import SECONDS, Ahead
from clawback.watch.answer import Answer, frozen_ms
from clawback.watch.cap import Cap
from clawback.watch.containment import Containment, NotRecorded, Step, steps_for
from clawback.watch.deadline import Deadline
from clawback.watch.together import Together
from clawback.watch.withheld import WITHHELD, is_taken_over, is_withheld
from clawback.world import World

__all__ = ["Reflex"]

# Many rehearsed calls make a spike. If it is the agent's after all, its next violation after recovery finds it again.
_COUNTING = frozenset({"sandbox.violation-spike"})
_UNDER_WAY = (ReceiptState.INTENDED, ReceiptState.APPLIED)
_INCIDENTS_PER_AGENT = 4
_AGENTS = 4096

_log = structlog.get_logger()


class Reflex:
    """Thread-safe for different agents; the findings of one agent are to be answered one after the other.

    playbook_of  the playbook that a detector's finding starts, by detector id
    per_minute   how many agents may be contained in a minute before further ones wait (see `cap`); 0 is no limit
    ahead_seconds   how long a freeze waits for what the journal knows of its finding
    drill        all that happens here is rehearsed, also what is about no agent
    """

    def __init__(
        self,
        journal: Journal,
        world: World,
        playbook_of: Callable[[str], str],
        *,
        per_minute: int = 0,
        ahead_seconds: float = SECONDS,
        drill: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.drills: Counter[str] = Counter()
        self.last_frozen_ms = 0.0
        self._journal = journal
        self._world = world
        self._containment = Containment(journal, world)
        self._playbook_of = playbook_of
        self.cap = Cap(per_minute)
        self._drill = drill
        self._lock = threading.Lock()
        self._deadline = Deadline()
        self._early = Ahead(ahead_seconds)
        self._together = Together(journal, self._containment, self._deadline, playbook_of, drill=drill)
        self._incidents: OrderedDict[str, deque[str]] = OrderedDict()

    def answer(self, finding: Finding) -> Answer:
        """Do all of it. `Unreachable` where the core does not answer (nothing was done: answer again), `NotRecorded`
        where the journal does not (the agent is contained: answer again for the record).
        """
        return self._counted(self._answer(finding))

    def answer_all(self, findings: Sequence[Finding]) -> tuple[Answer | None, ...]:
        """The same for findings about different agents, frozen first, by one order and two records for all. None where
        `answer` is to do it, or to go on with what was begun: whatever is not simply to be contained.
        """
        frozen = {info.agent: info for info in self.hurry(findings)}
        made = self._together.contain([(one, frozen[one.agent]) for one in findings if one.agent in frozen])
        for agent, answer in made.items():
            self._remember(agent, answer.incident)
            self.cap.drop(answer.incident)
        return tuple(self._counted(made[one.agent]) if one.agent in made else None for one in findings)

    def hurry(self, findings: Sequence[Finding]) -> tuple[AgentInfo, ...]:
        """Freeze, and nothing else, because the answers have to wait their turn. What would not be contained is left
        alone: an unknown agent, a rehearsal, what was answered long ago, whatever is beyond the cap. `answer` finds
        the agent frozen and makes the record. One call for all, and no look at any: in a storm the answers want all
        the time there is. Who was frozen.
        """
        answered = self._answered(findings)
        meant = {
            finding.agent: finding.instance
            for place, finding in enumerate(findings)
            if finding.about_agent
            and finding.reflex is not None
            and place not in answered
            and self._rehearsal(finding) is None
        }
        if not self._drill:
            anew = {agent for agent in meant if not self.cap.counts(agent)}
            meant = {agent: instance for agent, instance in meant.items() if self.cap.admit(agent)}
        else:
            anew = set()
        struck = self._world.core.strike(meant, drills=self._drill) if meant else ()
        for agent in (meant.keys() & anew) - {info.agent for info in struck}:
            self.cap.forget(agent)
        return struck

    @property
    def without_record(self) -> int:
        """Containments that the journal took no record of at the time."""
        return self._containment.without_record

    @property
    def missed(self) -> int:
        """Answers that took so long that the agent was contained beside them."""
        return self._deadline.missed

    @property
    def ahead(self) -> int:
        """Agents that were frozen ahead of a slow record."""
        return self._early.count

    def stop(self) -> None:
        """No finding is answered any more."""
        self._deadline.stop()
        self._early.stop()

    def resume(self) -> tuple[str, ...]:
        """Finish what a former watch was cut off in: every open incident that is not past containment. Returns all open
        incidents.
        """
        incidents = self._journal.incidents(IncidentStatus.OPEN)
        for incident in incidents:
            if not incident.about_agent:
                continue
            self._remember(incident.agent, incident.id)
            if incident.phase not in {Phase.IDENTIFY, Phase.CONTAIN} or not incident.findings:
                continue
            finding = max(incident.findings, key=lambda item: item.reflex or 0)
            try:
                info = self._current(finding)
                if isinstance(info, str) or is_taken_over(incident) or not (steps := self._steps(finding, info)):
                    continue
                if self._may(info, steps):
                    self._containment.contain(incident, finding, info, steps)
                else:
                    self._withhold(incident, finding)
            except (ClawbackError, NotRecorded) as error:
                _log.error("reflex not resumed", incident=incident.id, error=str(error))
        return tuple(incident.id for incident in incidents)

    def _counted(self, answer: Answer) -> Answer:
        with self._lock:
            (self.drills if answer.drill or self._drill else self.counts)[answer.outcome] += 1
            if answer.frozen_ms and not answer.drill:
                self.last_frozen_ms = answer.frozen_ms
        return answer

    def _answer(self, finding: Finding) -> Answer:
        if not finding.about_agent:
            return self._alert(finding)
        info = self._current(finding)
        if isinstance(info, str):
            # Telemetry that names an agent which is not there is forged or stale. No one is contained on its word.
            _log.warning("finding refused", reason=info, agent=finding.agent, instance=finding.instance)
            return Answer(outcome=info)
        with self._deadline.armed(lambda: self._late(finding, info)):
            return replace(self._recorded(finding, info), drill=self._drill or "drill" in info.tags)

    def _alert(self, finding: Finding) -> Answer:
        """About a part of Clawback: there is nobody to contain, and an incident for its playbook."""
        try:
            incident, opened = self._journal.open_or_join(
                finding, playbook=self._playbook_of(finding.detector), drill=self._drill
            )
        except Exception as error:
            raise NotRecorded(type(error).__name__) from error
        closed = incident.status is IncidentStatus.CLOSED
        return Answer(outcome="closed" if closed else "alert", incident=incident.id, opened=opened)

    def _late(self, finding: Finding, info: AgentInfo) -> None:
        if self._may(info, self._steps(finding, info)):
            self._containment.unrecorded(finding, info, TimeoutError())

    def _recorded(self, finding: Finding, info: AgentInfo) -> Answer:
        if (rehearsed := self._rehearsal(finding)) is not None:
            self._containment.note(rehearsed, "rogue call was repeated and reported", finding.summary)
            return Answer(outcome="rehearsal", incident=rehearsed.id)
        asked = self._steps(finding, info)
        steps = asked if self._may(info, asked) else ()
        begun: tuple[Receipt, ...] = ()
        drill = self._drill or "drill" in info.tags
        try:
            with self._ahead(info, steps) as decide:
                if steps:
                    decide(not self._journal.answered((finding,), drill=drill))
                with self._journal.together():  # one flush to disk for the incident and all intents
                    incident, opened = self._journal.open_or_join(
                        finding, playbook=self._playbook_of(finding.detector), drill=drill
                    )
                    if incident.status is IncidentStatus.OPEN:
                        begun = self._containment.intend_all(incident, steps, info)
                        if asked and not steps:
                            self._withhold(incident, finding)
        except Exception as error:
            if steps:
                self._containment.unrecorded(finding, info, error)
            raise NotRecorded(type(error).__name__) from error
        self._remember(incident.agent, incident.id)
        if incident.status is IncidentStatus.CLOSED:
            return Answer(outcome="closed", incident=incident.id)
        if asked and not steps:
            return Answer(outcome="withheld", incident=incident.id, opened=opened)
        if not steps:
            if finding.reflex is not None:
                self._containment.note(incident, "no reflex", f"{info.agent} is {info.state}")
            return Answer(outcome="alert", incident=incident.id, opened=opened)
        receipts = self._containment.contain(incident, finding, info, steps, begun)
        self.cap.drop(incident.id)
        verified = all(receipt.state is ReceiptState.VERIFIED for receipt in receipts)
        return Answer(
            outcome="contained" if verified else "partly",
            incident=incident.id,
            opened=opened,
            receipts=receipts,
            frozen_ms=frozen_ms(receipts, finding) if begun else 0.0,
        )

    def _answered(self, findings: Sequence[Finding]) -> frozenset[int]:
        """Those that led to an incident that is closed, by their places; none where the journal does not say."""
        try:
            return self._journal.answered(findings, drill=self._drill)
        except Exception as error:
            _log.error("not known what was answered before", findings=len(findings), error=type(error).__name__)
            return frozenset()

    def _ahead(self, info: AgentInfo, steps: tuple[Step, ...]) -> AbstractContextManager[Callable[[bool], None]]:
        if not steps or (info.hold and Level.FREEZE in info.hold.levels):
            return nullcontext(lambda _wanted: None)
        drills = self._drill or "drill" in info.tags
        return self._early.of(lambda: self._world.core.strike({info.agent: info.instance}, drills=drills))

    def _steps(self, finding: Finding, info: AgentInfo) -> tuple[Step, ...]:
        """What is asked for, lowest level first; nothing where there is no reflex or no running agent."""
        return () if finding.reflex is None or info.state is not AgentState.RUNNING else steps_for(finding)

    def _may(self, info: AgentInfo, steps: tuple[Step, ...]) -> bool:
        """Whether the cap lets it be done. What is done already is free, and so is a drill."""
        held = info.hold.levels if info.hold else ()
        if self._drill or "drill" in info.tags:
            return True
        return all(step.level in held for step in steps) or self.cap.admit(info.agent)

    def _withhold(self, incident: Incident, finding: Finding) -> None:
        self.cap.hold_back(incident.id, finding)
        if is_withheld(incident):
            return
        limit = self.cap.per_minute
        self.cap.withheld += 1
        _log.error("reflex withheld", agent=finding.agent, incident=incident.id, per_minute=limit)
        self._containment.note(
            incident,
            WITHHELD,
            f"{limit} agents were contained within a minute; it waits. `clawback contain {finding.agent}` contains "
            "this one, `clawback cap --override REASON` all that wait",
        )

    def _current(self, finding: Finding) -> AgentInfo | str:
        """The agent that the finding is about, as the core knows it, or why there is none."""
        try:
            info = self._world.core.agent(finding.agent)
        except NotFound:
            return "unknown-agent"
        return info if info.instance == finding.instance else "other-instance"

    def _rehearsal(self, finding: Finding) -> Incident | None:
        """The incident whose recovery made this call itself, to see it denied: same agent, a call that the incident
        lists, while the replay was under way. Anything else is the agent's doing.
        """
        counting = finding.detector in _COUNTING
        if not (finding.attempts or counting) or finding.agent not in self._incidents:
            return None
        for name in tuple(self._incidents[finding.agent]):
            try:
                incident = self._journal.incident(name)
            except Exception as error:
                _log.error("incident not read", incident=name, error=type(error).__name__)
                continue
            listed = {attempt for known in incident.findings for attempt in known.attempts}
            if (counting or set(finding.attempts) <= listed) and _replaying(incident, finding.time_ns):
                return incident
        return None

    def _remember(self, agent: str, incident: str) -> None:
        with self._lock:
            known = self._incidents.setdefault(agent, deque(maxlen=_INCIDENTS_PER_AGENT))
            if incident not in known:
                known.append(incident)
            self._incidents.move_to_end(agent)
            if len(self._incidents) > _AGENTS:
                self._incidents.popitem(last=False)


def _replaying(incident: Incident, at_ns: int) -> bool:
    """The recovery was trying the rogue calls at that time: its step is under way, or was then."""
    return any(
        receipt.intended_ns <= at_ns
        and (receipt.state in _UNDER_WAY or at_ns <= max(receipt.applied_ns, receipt.verified_ns))
        for receipt in incident.receipts
        if receipt.action == VALIDATE.id and receipt.intended_ns
    )
