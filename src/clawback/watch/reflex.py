"""Answer a finding at once: record it, freeze and isolate the agent, and say which incident is now the playbook's.

Nothing here waits for anything that is not needed to stop the agent. Where the journal fails, the agent is contained
without it and the record follows when it can: containment first.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from clawback.action import Action
from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.errors import ClawbackError, NotFound, Unreachable
from clawback.journal import Journal
from clawback.model import AgentInfo, AgentState, Finding, Incident, IncidentStatus, Level, Phase, Receipt, ReceiptState
from clawback.response import Response
from clawback.watch.deadline import Deadline
from clawback.world import World

__all__ = ["Answer", "NotRecorded", "Reflex"]

ACTOR = "watch"
LADDER: tuple[tuple[Level, Action[Any]], ...] = ((Level.FREEZE, FREEZE), (Level.ISOLATE, ISOLATE))
_INCIDENTS_PER_AGENT = 4
_AGENTS = 4096
_MINUTE_NS = 60 * 1_000_000_000

_log = structlog.get_logger()


class NotRecorded(Exception):  # noqa: N818 - says what happened; it is a state to be mended, not an error to be shown
    """The agent was contained as asked, and the journal took no record of it. To be answered again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was done about a finding.

    outcome    `contained`, `partly` (a level was not verified), `alert` (no reflex asked for or possible), or why
               nothing was done: `unknown-agent`, `other-instance`, `rehearsal`, `closed`
    incident   its id; empty where the finding was refused
    frozen_ms  from the event's time to the core's answer to freeze; 0.0 where it was not made now
    """

    outcome: str
    incident: str = ""
    opened: bool = False
    receipts: tuple[Receipt, ...] = ()
    frozen_ms: float = 0.0


class Reflex:
    """Thread-safe for different agents; the findings of one agent are to be answered one after the other.

    playbook_of  the playbook that a detector's finding starts, by detector id
    per_minute   how many agents may be contained in a minute before further findings only alert; 0 is no limit
    """

    def __init__(
        self, journal: Journal, world: World, playbook_of: Callable[[str], str], *, per_minute: int = 0
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.last_frozen_ms = 0.0
        self._journal = journal
        self._world = world
        self._playbook_of = playbook_of
        self._per_minute = per_minute
        self._lock = threading.Lock()
        self._deadline = Deadline()
        self._recent: deque[tuple[int, str]] = deque(maxlen=max(1, per_minute))
        self._incidents: OrderedDict[str, deque[str]] = OrderedDict()

    def answer(self, finding: Finding) -> Answer:
        """Do all of it. `Unreachable` where the core does not answer (nothing was done: answer again), `NotRecorded`
        where the journal does not (the agent is contained: answer again for the record).
        """
        answer = self._answer(finding)
        with self._lock:
            self.counts[answer.outcome] += 1
            if answer.frozen_ms:
                self.last_frozen_ms = answer.frozen_ms
        return answer

    @property
    def missed(self) -> int:
        """Answers that took so long that the agent was contained beside them."""
        return self._deadline.missed

    def stop(self) -> None:
        """No finding is answered any more."""
        self._deadline.stop()

    def resume(self) -> tuple[str, ...]:
        """Finish what a former watch was cut off in: every open incident that is not past containment. Returns all open
        incidents.
        """
        incidents = self._journal.incidents(IncidentStatus.OPEN)
        for incident in incidents:
            self._remember(incident)
            if incident.phase not in {Phase.IDENTIFY, Phase.CONTAIN} or not incident.findings:
                continue
            finding = max(incident.findings, key=lambda item: item.reflex or 0)
            try:
                info = self._current(finding)
                if isinstance(info, AgentInfo) and finding.reflex is not None and info.state is AgentState.RUNNING:
                    self._contain(incident, finding, info)
            except (ClawbackError, NotRecorded) as error:
                _log.error("reflex not resumed", incident=incident.id, error=str(error))
        return tuple(incident.id for incident in incidents)

    def _answer(self, finding: Finding) -> Answer:
        info = self._current(finding)
        if isinstance(info, str):
            # Telemetry that names an agent which is not there is forged or stale. No one is contained on its word.
            _log.warning("finding refused", reason=info, agent=finding.agent, instance=finding.instance)
            return Answer(outcome=info)
        with self._deadline.armed(lambda: self._contain_unrecorded(finding, info, TimeoutError())):
            return self._recorded(finding, info)

    def _recorded(self, finding: Finding, info: AgentInfo) -> Answer:
        if (rehearsed := self._rehearsal(finding)) is not None:
            self._note(rehearsed, "rogue call was repeated and reported", finding.summary)
            return Answer(outcome="rehearsal", incident=rehearsed.id)
        try:
            incident, opened = self._journal.open_or_join(
                finding, playbook=self._playbook_of(finding.detector), drill="drill" in info.tags
            )
        except Exception as error:
            self._contain_unrecorded(finding, info, error)
            raise NotRecorded(type(error).__name__) from error
        self._remember(incident)
        if incident.status is IncidentStatus.CLOSED:
            return Answer(outcome="closed", incident=incident.id)
        if finding.reflex is None:
            return Answer(outcome="alert", incident=incident.id, opened=opened)
        if info.state is not AgentState.RUNNING:
            self._note(incident, "no reflex", f"{finding.agent} is {info.state}")
            return Answer(outcome="alert", incident=incident.id, opened=opened)
        if not self._within_cap(finding.agent):
            self._note(incident, "reflex withheld", f"{self._per_minute} agents were contained within a minute")
            _log.error("reflex withheld", agent=finding.agent, incident=incident.id, per_minute=self._per_minute)
            return Answer(outcome="alert", incident=incident.id, opened=opened)
        receipts = self._contain(incident, finding, info)
        verified = all(receipt.state is ReceiptState.VERIFIED for receipt in receipts)
        frozen = next((item for item in receipts if item.action == FREEZE.id and item.applied_ns), None)
        return Answer(
            outcome="contained" if verified else "partly",
            incident=incident.id,
            opened=opened,
            receipts=receipts,
            frozen_ms=max(0.0, (frozen.applied_ns - finding.time_ns) / 1e6) if frozen and opened else 0.0,
        )

    def _current(self, finding: Finding) -> AgentInfo | str:
        """The agent that the finding is about, as the core knows it, or why there is none."""
        try:
            info = self._world.core.agent(finding.agent)
        except NotFound:
            return "unknown-agent"
        return info if info.instance == finding.instance else "other-instance"

    def _contain(self, incident: Incident, finding: Finding, info: AgentInfo) -> tuple[Receipt, ...]:
        """Every level up to the reflex, lowest first; one that fails does not stop the next."""
        response = Response(self._journal, self._world, actor=ACTOR, incident_id=incident.id)
        held = info.hold.levels if info.hold else ()
        receipts: list[Receipt] = []
        for level, action in LADDER:
            if finding.reflex is None or level > finding.reflex:
                break
            params = action.params(agent=finding.agent, instance=finding.instance, reason=_reason(finding))
            began = time.time_ns()
            try:
                receipt = response.execute(action, params, phase=Phase.CONTAIN)
            except Exception as error:
                self._contain_unrecorded(finding, info, error)
                raise NotRecorded(type(error).__name__) from error
            receipts.append(receipt)
            if receipt.state is ReceiptState.VERIFIED and (receipt.verified_ns >= began or level in held):
                continue
            if receipt.state is ReceiptState.INTENDED:
                raise Unreachable(f"the core did not answer to {action.id}")
            # The journal holds this step as done and undone, or done long ago, and the agent is free: somebody released
            # it since. The record stays as it is; the agent does not.
            self._contain_again(incident, finding, level, receipt)
        return tuple(receipts)

    def _contain_again(self, incident: Incident, finding: Finding, level: Level, receipt: Receipt) -> None:
        try:
            result = self._world.core.contain(
                finding.agent,
                level,
                instance=finding.instance,
                reason=_reason(finding),
                by=ACTOR,
                incident=incident.id,
            )
        except Unreachable:
            raise
        except ClawbackError as error:
            _log.error("containment refused", agent=finding.agent, level=level.word, error=error.message)
            self._note(incident, f"agent.{level.word} refused", error.message)
            return
        self._note(
            incident,
            f"agent.{level.word} again",
            f"receipt {receipt.id} is {receipt.state}; now {result.enforcement}: {result.observed}",
        )

    def _contain_unrecorded(self, finding: Finding, info: AgentInfo, cause: Exception) -> None:
        _log.critical(
            "the journal takes no record; containing without it", agent=finding.agent, error=type(cause).__name__
        )
        self.counts["unrecorded"] += 1
        if info.state is not AgentState.RUNNING or finding.reflex is None:
            return
        held = info.hold.levels if info.hold else ()
        for level, _ in LADDER:
            if level > finding.reflex or level in held:
                continue
            try:
                result = self._world.core.contain(
                    finding.agent, level, instance=finding.instance, reason=_reason(finding), by=ACTOR
                )
            except Unreachable:
                raise
            except ClawbackError as error:
                _log.error("containment refused", agent=finding.agent, level=level.word, error=error.message)
                continue
            _log.warning(
                "contained without a record",
                agent=finding.agent,
                level=level.word,
                enforcement=str(result.enforcement),
                observed=result.observed,
            )

    def _rehearsal(self, finding: Finding) -> Incident | None:
        """The incident whose recovery made this call itself, to see it denied: same agent, a call that the incident
        lists, an event of the recovery's time. Anything else is the agent's doing.
        """
        if not finding.attempts or finding.agent not in self._incidents:
            return None
        for name in tuple(self._incidents[finding.agent]):
            try:
                incident = self._journal.incident(name)
            except Exception as error:
                _log.error("incident not read", incident=name, error=type(error).__name__)
                continue
            listed = {attempt for known in incident.findings for attempt in known.attempts}
            if set(finding.attempts) <= listed and _in_recovery(incident, finding.time_ns):
                return incident
        return None

    def _within_cap(self, agent: str) -> bool:
        if not self._per_minute:
            return True
        now = time.monotonic_ns()
        with self._lock:
            if any(name == agent for _, name in self._recent):
                return True
            if len(self._recent) == self._recent.maxlen and now - self._recent[0][0] < _MINUTE_NS:
                return False
            self._recent.append((now, agent))
            return True

    def _remember(self, incident: Incident) -> None:
        with self._lock:
            known = self._incidents.setdefault(incident.agent, deque(maxlen=_INCIDENTS_PER_AGENT))
            if incident.id not in known:
                known.append(incident.id)
            self._incidents.move_to_end(incident.agent)
            if len(self._incidents) > _AGENTS:
                self._incidents.popitem(last=False)

    def _note(self, incident: Incident, what: str, detail: str) -> None:
        try:
            self._journal.note(incident, Phase.CONTAIN, what, detail)
        except Exception as error:
            _log.error("not noted", incident=incident.id, what=what, error=type(error).__name__)


def _reason(finding: Finding) -> str:
    return f"{finding.detector}: {finding.title}"[:500]


def _in_recovery(incident: Incident, at_ns: int) -> bool:
    began = next((line.at_ns for line in incident.timeline if line.what == f"phase {Phase.RECOVER}"), 0)
    if not began or at_ns < began:
        return False
    after = f"phase {Phase.POST_INCIDENT}"
    ended = next((line.at_ns for line in incident.timeline if line.what == after), incident.closed_ns)
    return not ended or at_ns <= ended
