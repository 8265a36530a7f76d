"""A playbook's run as Prefect sees it: one flow run for the incident, one task run for each step.

The effects are not in Prefect's hands. The playbook runs in a thread of ours, from the moment it is asked to; the
flow's and the tasks' bodies say "begun" and wait to be told how it ended. So Prefect shows and times every step,
and can neither repeat one, nor lose one, nor hold one up: only the end waits for a flow that has not begun, and not
for long (`clawback.orchestrate.shown`).

Telling Prefect of a run costs two processors a quarter of a second, its server's and ours: as much as containing the
agent. So it hears of it when the agent is contained and its credentials are closed, or after `HOLD_SECONDS`, and while
alerts pour in when that is over; the journal has the times at which things happened.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Self
from uuid import UUID

import structlog
from prefect import Flow, Task, tags
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import AsyncClientContext, SyncClientContext, TagsContext
from prefect.events.worker import EventsWorker
from prefect.flow_engine import run_flow_async
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed

from clawback.action import Action, Params
from clawback.model import Incident, IncidentStatus, Orchestration, Phase, Receipt, ReceiptState
from clawback.orchestrate.shown import Pulse, Shown
from clawback.response import Responder, Response, Run, step_key

__all__ = ["FlowResponder", "Prefect", "flow_state"]

_log = structlog.get_logger()

HOLD_SECONDS = 2.0
FINISH_SECONDS = 8.0  # that Prefect has to write down how it ended, when all is done
DRAIN_SECONDS = 5.0
_OF_INCIDENT = "incident:"
_ALIVE = (StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.PAUSED)
_AFTERWARDS = frozenset({Phase.RECOVER, Phase.POST_INCIDENT})


class FlowResponder(Responder):
    """Shows every step as a task run of the flow run, and makes it here."""

    def __init__(
        self,
        response: Response,
        loop: asyncio.AbstractEventLoop,
        flow: Shown,
        *,
        held: Callable[[], bool],
        turn: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__(response, held=held, turn=turn)
        self._loop = loop
        self._flow = flow
        self._noted = False
        self.steps: list[Shown] = []

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Enter a phase; with those after eradication, Prefect hears of the run."""
        if phase in _AFTERWARDS:
            self._loop.call_soon_threadsafe(self._flow.may_begin)
        with super().phase(phase):
            yield

    def make(self, action: Action[Any], params: Params, call: Callable[[], Receipt]) -> Receipt:
        """Make the step, and have Prefect show it meanwhile: nothing waits for that."""
        if self._flow.shown:
            self.settle()
        step = Shown(self._loop)
        self.steps.append(step)
        self._loop.call_soon_threadsafe(self._begin, step, action.id, step_key(action, params))
        receipt: Receipt | None = None
        try:
            receipt = super().make(action, params, call)
            return receipt
        finally:
            step.end(partial(_step_state, receipt))

    def settle(self) -> None:
        """On the playbook's thread: have the journal say, once, whether Prefect shows this run."""
        if self._noted:
            return
        self._noted = True
        self._loop.call_soon_threadsafe(self._flow.let)
        if self._flow.wait_begun():
            self.response.journal.orchestration(self.response.incident_id, Orchestration.PREFECT)
        else:
            self.response.journal.orchestration(
                self.response.incident_id, Orchestration.DEGRADED, "Prefect did not answer"
            )

    def _begin(self, step: Shown, name: str, key: str) -> None:
        task = Task(step.body, name=name, task_run_name=_literal(key), cache_policy=NO_CACHE, retries=0)
        # A context of its own: tasks that run side by side in one would each take the other for their parent.
        self._flow.then(lambda: step.start(_step(task), self._flow.context.copy() if self._flow.context else None))

    async def finish(self, state: Callable[[], Any]) -> bool:
        """On the loop: let Prefect write down all ends, for `FINISH_SECONDS` at most; true if it showed everything."""
        self._flow.let()
        deadline = self._loop.time() + (FINISH_SECONDS if self._flow.shown else 0.0)
        if tasks := {step.task for step in self.steps if step.task is not None}:
            await asyncio.wait(tasks, timeout=FINISH_SECONDS)
        self._flow.end(state)
        if self._flow.task is not None:
            await asyncio.wait({self._flow.task}, timeout=max(0.5, deadline - self._loop.time()))
        shown = [*self.steps, self._flow]
        for item in shown:
            await item.drop()
        return all(item.kept for item in shown)


class Prefect:
    """Prefect's clients, held open for the life of the process: each costs 15 ms of TLS set-up to make.

    `tag` marks this installation's runs among others' on the same server.
    """

    def __init__(self, tag: str, api_url: str) -> None:
        self.tag = tag
        self.api_url = api_url
        self._stack = AsyncExitStack()
        self._client: AsyncClientContext | None = None
        self._context: contextvars.Context | None = None
        self._pulse = Pulse()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(temporary_settings({PREFECT_API_URL: self.api_url}))
        self._client = await self._stack.enter_async_context(AsyncClientContext.get_or_create())
        self._stack.enter_context(SyncClientContext.get_or_create())
        self._context = contextvars.copy_context()
        await self._warm()
        return self

    async def _warm(self) -> None:
        """Run and delete one empty flow: Prefect imports half a second's worth when it runs its first."""

        async def step() -> None: ...

        async def empty() -> None:
            await _step(Task(step, name="warm-up", cache_policy=NO_CACHE))

        with tags(self.tag):
            ended = await Flow(empty, name="warm-up")(return_state=True)
        if (run := ended.state_details.flow_run_id) is not None:
            await self.client.delete_flow_run(run)

    async def __aexit__(self, *_: object) -> None:
        # Task runs reach the server as events, sent by a thread in the background; let it send what it has.
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.to_thread(_drain)
        await self._stack.aclose()

    def begin(
        self,
        name: str,
        incident: str,
        *,
        drill: bool,
        launched: UUID | None = None,
        rush: Callable[[], bool] | None = None,
    ) -> Shown:
        """Start the flow run, or the one that was `launched`; the playbook's thread waits for it with `wait_begun`.
        In a `rush` it is held back for longer.
        """
        loop = asyncio.get_running_loop()
        shown = Shown(loop, self._pulse)

        async def run() -> Any:
            marks = self._marks(incident, drill=drill)
            with tags(*marks):
                flow = Flow(
                    shown.body, name=name, flow_run_name=_literal(incident), retries=0, validate_parameters=False
                )
                if launched is None:
                    return await _called(flow)
                there = await self.client.read_flow_run(launched)
                await self.client.update_flow_run(launched, tags={*there.tags, *marks})
                return await run_flow_async(flow, flow_run=there, parameters={}, return_type="state")

        def start() -> None:
            shown.start(run(), self._context.copy() if self._context is not None else None)

        if launched is None:
            shown.hold(start, HOLD_SECONDS, rush)
        else:  # somebody looks at it there
            shown.hold(start, 0.0)
        return shown

    async def alive(self, incident: str | None = None) -> list[tuple[UUID, str]]:
        """Runs of ours that claim to be alive, or one incident's: (run id, incident id)."""
        return await self._runs(incident, _ALIVE)

    async def _runs(self, incident: str | None, states: tuple[StateType, ...]) -> list[tuple[UUID, str]]:
        marks = [self.tag, *([f"{_OF_INCIDENT}{incident}"] if incident else [])]
        wanted = FlowRunFilter.model_validate({"tags": {"all_": marks}, "state": {"type": {"any_": list(states)}}})
        runs = await self.client.read_flow_runs(
            flow_run_filter=wanted, limit=200, sort=FlowRunSort.EXPECTED_START_TIME_ASC
        )
        return [
            (run.id, tag.removeprefix(_OF_INCIDENT)) for run in runs for tag in run.tags if tag.startswith(_OF_INCIDENT)
        ]

    async def reconcile(self, run: UUID, incident: Incident | None) -> int:
        """End a run that nobody works on: as its incident ended, if Prefect was away then, or else as crashed. Prefect
        itself would need a minute to notice. How many it was told.
        """
        state: Any = Crashed(message="its process ended; the response goes on in a new run")
        if incident is not None and incident.status is IncidentStatus.CLOSED:
            state = Crashed(message=f"its process ended; another run saw {incident.id} closed")
            if not await self._runs(incident.id, (StateType.COMPLETED,)):
                state = Completed(message=f"{incident.id} closed while Prefect was away")
        await self.client.set_flow_run_state(run, state, force=True)
        return 1

    async def make_good(self, incident: Incident) -> int:
        """Have Prefect show that an incident closed while it was away or too busy to be told: by its last run, of which
        Prefect may say that it crashed, or by a new one without steps, which are in the journal. How many it was told.
        A run that somebody cancelled there stays as that person left it.
        """
        if await self._runs(incident.id, (StateType.COMPLETED,)):
            return 0
        state: Any = Completed(message=f"{incident.id} closed unseen by Prefect; the journal has its steps")
        if crashed := await self._runs(incident.id, (StateType.CRASHED,)):
            await self.client.set_flow_run_state(crashed[-1][0], state, force=True)
        elif await self._runs(incident.id, (*_ALIVE, StateType.CANCELLING, StateType.CANCELLED)):
            return 0  # who is alive is reconciled
        else:
            flow = Flow(_nothing, name=incident.playbook)
            await self.client.create_flow_run(
                flow, name=incident.id, tags=self._marks(incident.id, drill=incident.drill), state=state
            )
        return 1

    def _marks(self, incident: str, *, drill: bool) -> list[str]:
        return [self.tag, f"{_OF_INCIDENT}{incident}", *(["drill"] if drill else [])]

    @property
    def client(self) -> Any:
        """Prefect's client, held open."""
        if self._client is None:
            raise RuntimeError("used outside of its context")
        return self._client.client


def flow_state(run: Run | None) -> Any:
    """How the flow run ends; without a `Run` it was interrupted."""
    if run is None:
        return Crashed(message="the response was interrupted")
    if run.incident.status is IncidentStatus.CLOSED:
        return Completed(message=f"{run.incident.id} closed: all {len(run.incident.receipts)} steps settled")
    waiting = ", ".join(f"{receipt.action} {receipt.state.value}" for receipt in run.pending)
    return Failed(message=run.error or f"{run.incident.id} stays open: {waiting}")


def _step_state(receipt: Receipt | None) -> Any:
    if receipt is None:
        return Crashed(message="the response was interrupted here")
    if receipt.state is ReceiptState.VERIFIED:
        return Completed(name="Verified", message=receipt.proof)
    return Failed(name=receipt.state.value.capitalize(), message=receipt.error or receipt.proof)


def _drain() -> None:
    EventsWorker.drain_all(timeout=DRAIN_SECONDS, at_exit=False)


async def _nothing() -> None: ...


def _literal(name: str) -> Any:
    """A run name that Prefect takes as it is: from a function, because it formats strings, and braces are data here."""
    return lambda: name


async def _called(unit: Any) -> Any:
    return await unit(return_state=True)


async def _step(task: Any) -> Any:
    """A task has the tags that all have, and not its incident's: for each set of them Prefect keeps a thread and the
    context of its first task for good. With none at all its events follow each other so closely that the server lists
    some tasks half a minute later, and some never.
    """
    shared = {one for one in TagsContext.get().current_tags if not one.startswith(_OF_INCIDENT)}
    with TagsContext(current_tags=shared):
        return await _called(task)
