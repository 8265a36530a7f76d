"""Carries incidents from "opened" to their end: as Prefect flows when Prefect answers, by the journal alone when not.

One engine serves one process. Each incident runs in a thread of its own, at most `WORKERS` at once, and holds its
agent's lock while it does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import structlog

from clawback.action import Action
from clawback.config import ApprovalSettings
from clawback.errors import ClawbackError, InvalidInput, NotFound, Refused
from clawback.journal import Held, Journal, Turn
from clawback.model import Incident, IncidentStatus, Orchestration, ReceiptState
from clawback.orchestrate.by_hand import by_hand
from clawback.orchestrate.end import End
from clawback.orchestrate.pace import Pace
from clawback.orchestrate.unshown import Unshown
from clawback.playbook import Playbook, Respond
from clawback.response import Responder, Response, Run, run_playbook, unfinished, unsettled
from clawback.world import World

if TYPE_CHECKING:
    from clawback.orchestrate.flow import Prefect
    from clawback.orchestrate.shown import Shown

__all__ = ["Engine"]

_log = structlog.get_logger()

WORKERS = 16
_WAITING_STATES = (ReceiptState.INTENDED, ReceiptState.APPLIED)
_RETRIES_SECONDS = 300.0
_ROUND_SECONDS = 5.0  # for which telling Prefect what it missed may keep the link from looking whether it answers
_TOO_MANY, _SERVER_FAILS = 429, 500  # RFC 6585, 9110: it may take it later
LOCK_SECONDS = 600.0  # an earlier incident of the same agent goes first


class Engine:
    """Runs incidents. `world_factory` is called once, when the first incident needs it, and again if it raised."""

    def __init__(
        self,
        journal: Journal,
        world_factory: Callable[[], World],
        playbooks: Mapping[str, Playbook],
        *,
        actions: Mapping[str, Action[Any]] | None = None,
        actor: str = "responder",
        approvals: ApprovalSettings | None = None,
    ) -> None:
        self.journal = journal
        self.prefect: Prefect | None = None
        self.pace = Pace()
        self._world_factory = world_factory
        self._world: World | None = None
        self._making = threading.Lock()
        self._playbooks = playbooks
        self._actions = actions
        self._actor = actor
        self._approvals = approvals
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="playbook")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: Counter[str] = Counter()
        self._unshown = Unshown()

    async def run(self, incident_id: str) -> End:
        """Run, or go on with, one incident, once an earlier one of the same agent is through. Never raises for what is
        wrong with the incident: its end says it.
        """
        began, first = time.monotonic(), [0.0]
        error = await self._threaded(incident_id, lambda: self._alone(incident_id, first, patience=LOCK_SECONDS))
        return self._end(incident_id, error, began, first[0])

    async def turn(self, incident_id: str, pause: Callable[[int, bool], float]) -> End | None:
        """The same for a worker: only if it is due and nobody works on it, else None. `pause` says for how many seconds
        it rests, after so many tries, where a part did not answer (True) or a proof is missing (False).
        """
        began, first, taken = time.monotonic(), [0.0], [False]

        def work() -> Run | None:
            with self.journal.lock(self.journal.agent_of(incident_id)) as held:
                turn = self.journal.turn(incident_id)
                if turn is None:
                    return None
                taken[0] = True
                run: Run | None = None
                try:
                    run = self._work(turn.incident, held, first)
                    return run
                finally:
                    self._rest(turn, pause, interrupted=run is None)

        error = await self._threaded(incident_id, work, lambda: taken[0])
        return self._end(incident_id, error, began, first[0]) if taken[0] or error else None

    async def launch(self, run: UUID, playbook: str, asked: Mapping[str, str]) -> str:
        """A run that somebody started in Prefect: opens or joins an incident and runs the playbook, shown by that run.
        Returns what is wrong, if it never began; raises `ClawbackError` for parameters that name nothing.
        """
        first, began = [0.0], [False]

        def work() -> Run | None:
            incident_id, agent, instance, drill = self._meant(asked)
            with self.journal.lock(agent, timeout=LOCK_SECONDS) as held:
                if not incident_id:
                    finding = by_hand(agent, instance, run, asked.get("REASON", ""))
                    incident_id = self.journal.open_or_join(finding, playbook=playbook, drill=drill)[0].id
                incident = self.journal.incident(incident_id)
                if incident.status is IncidentStatus.CLOSED:
                    raise Refused(f"{incident_id} is closed", hint="launch it for the agent, to open another")
                self.journal.enqueue(incident_id)
                turn = self.journal.turn(incident_id)
                self.journal.note(
                    incident, incident.phase, "launched in Prefect", f"{playbook}: {asked.get('REASON', '')}"
                )
                began[0] = True
                made: Run | None = None
                try:
                    made = self._work(incident, held, first, launched=run)
                    return made
                finally:
                    if turn is not None:
                        self._rest(turn, lambda _tries, _unreached: 1.0, interrupted=made is None)

        error = await self._threaded(str(run), work)
        return "" if began[0] else error

    def _meant(self, asked: Mapping[str, str]) -> tuple[str, str, str, bool]:
        """The incident, if one is named, its agent and instance, and whether that is a drill's."""
        if name := asked.get("INCIDENT", ""):
            incident = self.journal.incident(name)
            return incident.id, incident.agent, incident.instance, incident.drill
        if not asked.get("AGENT"):
            raise InvalidInput("neither AGENT nor INCIDENT is given", hint="give one of them")
        info = self._the_world().core.agent(asked["AGENT"])
        return "", info.agent, info.instance, "drill" in info.tags

    async def _threaded(
        self, incident_id: str, work: Callable[[], Run | None], taken: Callable[[], bool] = lambda: True
    ) -> str:
        self._loop = asyncio.get_running_loop()
        self._running[incident_id] += 1
        try:
            run = await self._loop.run_in_executor(self._threads, work)
            return run.error if run is not None else ""
        except Refused as refused:
            if not taken():
                return ""  # somebody else works on the agent
            return refused.message
        except Exception as problem:  # the journal's or the world's; the incident stays as it is, to be resumed
            _log.exception("a response was interrupted", incident=incident_id)
            return problem.message if isinstance(problem, ClawbackError) else f"defect: {type(problem).__name__}"
        finally:
            self._running[incident_id] -= 1

    def _rest(self, turn: Turn, pause: Callable[[int, bool], float], *, interrupted: bool) -> None:
        left = unsettled(self.journal.incident(turn.incident.id))
        unreached = interrupted or any(receipt.state in _WAITING_STATES for receipt in left)
        again = unreached or any(receipt.state is ReceiptState.UNVERIFIED for receipt in left)
        # It got further: the parts come back.
        tries = 0 if turn.pending and len(left) < turn.pending else turn.tries
        self.journal.rest(
            turn,
            seconds=pause(tries, unreached) if again else None,
            tries=tries + 1 if again else 0,
            pending=len(left),
        )

    def _end(self, incident_id: str, error: str, began: float, first: float) -> End:
        incident = self._known(incident_id)
        return End(
            incident=incident_id,
            status="unknown" if incident is None else incident.status.value,
            orchestration="none" if incident is None else incident.orchestration.value,
            pending=()
            if incident is None
            else tuple(f"{receipt.action} {receipt.state.value}" for receipt in unsettled(incident)),
            unreached=incident is not None and any(receipt.state in _WAITING_STATES for receipt in unsettled(incident)),
            unproved=incident is not None
            and any(receipt.state is ReceiptState.UNVERIFIED for receipt in unsettled(incident)),
            error=error,
            elapsed_ms=round((time.monotonic() - began) * 1e3, 3),
            first_line_ms=round((first - began) * 1e3, 3) if first else 0.0,
        )

    async def resume_all(self) -> tuple[End, ...]:
        """Go on with every open incident."""
        return tuple(await asyncio.gather(*(self.run(name) for name in unfinished(self.journal))))

    async def reconcile(self) -> int:
        """Tell Prefect of its runs whose process is gone, which are those of incidents that no live process works on;
        then of incidents that it does not have as they ended, as many as fit into `_ROUND_SECONDS`. How many it took;
        what it refuses holds up none of the others. Raises `httpx.TransportError` when it does not answer.
        """
        prefect, end = self.prefect, time.monotonic() + _ROUND_SECONDS
        if prefect is None:
            return 0
        count = 0
        for run, incident_id in await prefect.alive():
            incident = self._known(incident_id)
            if incident is None or (not self._running[incident_id] and not self.journal.lock_owner(incident.agent)):
                with self._refusals(incident_id):
                    count += await prefect.reconcile(run, incident)
        for _ in range(len(self._unshown)):
            if time.monotonic() > end or not (incident_id := self._unshown.turn()):
                break
            incident = self._known(incident_id)
            with self._refusals(incident_id):
                if incident is not None and incident.status is IncidentStatus.CLOSED:
                    count += await prefect.make_good(incident)
                self._unshown.told(incident_id)
        return count

    @contextmanager
    def _refusals(self, incident_id: str) -> Iterator[None]:
        """What Prefect refuses ends here. Where its server fails or has too much to do, it is not held against it."""
        try:
            yield
        except httpx.TransportError:
            raise
        except Exception as error:
            _log.warning("prefect: refused to be told", incident=incident_id, error=type(error).__name__)
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            if status < _SERVER_FAILS and status != _TOO_MANY and self._unshown.refused(incident_id):
                _log.warning("prefect: not shown, and no longer tried", incident=incident_id)

    @property
    def behind(self) -> bool:
        """A round of `reconcile` was too short for all that Prefect is to be told."""
        return self._unshown.behind

    def response_to(self, incident_id: str) -> Response:
        """What acts on one incident. Raises what making the world raises."""
        return Response(
            self.journal,
            self._the_world(),
            self._actor,
            incident_id,
            actions=self._actions,
            approvals=self._approvals,
        )

    def prepare(self) -> None:
        """Make the world, and have its parts load what they need, before an incident waits for that.

        What fails here fails again, and is said, where it is needed; containment does not need it.
        """
        try:
            world = self._the_world()
            for part in (world.vault_or_none, world.cloud_or_none):
                if part is not None:
                    part.prepare()
        except Exception as error:
            _log.warning("not prepared", error=type(error).__name__)

    def close(self) -> None:
        """Let the threads end; what they run is finished first."""
        self._threads.shutdown()

    # -- on the playbook's thread ------------------------------------------------------------------------------------

    def _alone(self, incident_id: str, first: list[float], *, patience: float) -> Run:
        with self.journal.lock(self.journal.agent_of(incident_id), timeout=patience) as held:
            return self._work(self.journal.incident(incident_id), held, first)

    def _work(self, incident: Incident, held: Held, first: list[float], *, launched: UUID | None = None) -> Run:
        """`incident` as it stands since the lock was taken."""
        playbook = self._playbooks.get(incident.playbook)
        if playbook is None:
            raise NotFound(f"no playbook {incident.playbook!a}", hint="`clawback catalog` lists them")
        if incident.status is IncidentStatus.CLOSED:
            return Run(incident=incident)
        response = self.response_to(incident.id)
        prefect, shown, loop = self.prefect, None, self._loop
        if prefect is not None and loop is not None:
            shown = asyncio.run_coroutine_threadsafe(self._show(prefect, playbook, incident, launched), loop).result()
        first[0] = time.monotonic()
        if shown is None or loop is None:
            self.journal.orchestration(incident.id, Orchestration.DEGRADED, "Prefect did not answer")
            responder = Responder(response, held=lambda: not held.lost, turn=self.pace.step)
            try:
                return run_playbook(playbook, responder, self._playbooks, incident=incident)
            finally:
                self._unshown.note(incident.id, 0.0)  # once Prefect answers
        return self._as_flow(playbook, incident, response, loop, shown, held)

    def _as_flow(
        self,
        playbook: Playbook,
        incident: Incident,
        response: Response,
        loop: asyncio.AbstractEventLoop,
        shown: Shown,
        held: Held,
    ) -> Run:
        from clawback.orchestrate.flow import FlowResponder, flow_state

        responder = FlowResponder(response, loop, shown, held=lambda: not held.lost, turn=self.pace.step)
        run: Run | None = None

        def whole(incident: Incident, respond: Respond) -> None:
            playbook.run(incident, respond)
            responder.settle()  # before the incident is closed, so that its record says who drove it

        try:
            told = dataclasses.replace(playbook, run=whole)
            run = run_playbook(told, responder, self._playbooks, incident=incident)
        finally:
            kept = asyncio.run_coroutine_threadsafe(responder.finish(partial(flow_state, run)), loop).result()
            if not kept:
                # Its end may yet be written, as a crash, by Prefect's own retries: looked at for as long as they last,
                # also of a run that never began here, which Prefect may have as running or not have at all.
                self._unshown.note(response.incident_id, _RETRIES_SECONDS)
            if not kept and shown.shown:
                self.journal.orchestration(
                    response.incident_id, Orchestration.DEGRADED, "Prefect stopped answering; the playbook went on"
                )
        return Run(incident=self.journal.incident(response.incident_id), error=run.error)

    async def _show(self, prefect: Prefect, playbook: Playbook, incident: Incident, launched: UUID | None) -> Shown:
        if incident.orchestration is not Orchestration.NONE:
            # An earlier attempt died. We hold the agent's lock, so its flow run is nobody's.
            try:
                async with asyncio.timeout(1.0):
                    for run, _ in await prefect.alive(incident.id):
                        if run != launched:  # which may be one of those, launched again
                            await prefect.reconcile(run, None)
            except Exception as error:
                _log.warning("prefect: an earlier run could not be marked", error=type(error).__name__)
        return prefect.begin(
            playbook.id, incident.id, drill=incident.drill, launched=launched, rush=lambda: self.pace.rush
        )

    def _the_world(self) -> World:
        with self._making:
            if self._world is None:
                self._world = self._world_factory()
            return self._world

    def _known(self, incident_id: str) -> Incident | None:
        try:
            return self.journal.incident(incident_id)
        except ClawbackError:
            return None
