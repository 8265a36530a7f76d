"""Runs that somebody starts in Prefect, by its UI, its command line or a schedule: registered, taken, made.

A launch is a person's order, given with Prefect's one credential. It goes the way of every response: an incident is
opened or joined in the journal, under the agent's lock, and the playbook is run for it. The run that was launched is
the one that shows it. A launch that was taken by a process which died is launched again.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, Pending, Running, Scheduled

from clawback.errors import ClawbackError
from clawback.orchestrate.declared import Declared

if TYPE_CHECKING:
    from clawback.orchestrate.engine import Engine

__all__ = ["Launches"]

_log = structlog.get_logger()

LOOK_SECONDS = 1.0
_FORGOTTEN = timedelta(seconds=60)  # that a taken launch may go without an incident before it is launched again
_DRILL_SECONDS = 1800.0
_SHOWN_LINES = 40


class Launches:
    """Takes launches of `declared` for the engine. One for a link to a server."""

    def __init__(self, client: PrefectClient, tag: str, engine: Engine, declared: Sequence[Declared]) -> None:
        self._client = client
        self._tag = tag
        self._engine = engine
        self._declared = declared
        self._known: dict[UUID, Declared] = {}
        self._running: dict[UUID, asyncio.Task[None]] = {}

    async def register(self) -> None:
        """Have Prefect offer them. What it offers already is left as it is, with the schedules that people gave it."""
        for one in self._declared:
            flow = await self._client.create_flow_from_name(one.flow)
            self._known[await self._deployment(one, flow)] = one

    async def _deployment(self, one: Declared, flow: UUID) -> UUID:
        try:
            there = await self._client.read_deployment_by_name(f"{one.flow}/{one.name}")
        except ObjectNotFound:
            schedules = [DeploymentScheduleCreate(schedule=CronSchedule(cron=one.cron))] if one.cron else []
            return await self._client.create_deployment(
                flow,
                one.name,
                version=one.version,
                schedules=schedules,
                description=one.description,
                tags=[self._tag, *(["drill"] if one.drill else [])],
                parameter_openapi_schema=dict(one.schema),
                enforce_parameter_schema=True,
            )
        if there.version != one.version:
            await self._client.update_deployment(
                there.id,
                DeploymentUpdate(
                    version=one.version,
                    description=one.description,
                    tags=there.tags,
                    parameter_openapi_schema=dict(one.schema),
                ),
            )
        return there.id

    async def keep(self) -> None:
        """Register, then take what is launched until cancelled; a server that fails is asked again."""
        registered = False
        while True:
            try:
                if not registered:
                    await self.register()
                    await self._again()
                    registered = True
                    _log.info("prefect: deployments are registered", deployments=len(self._known))
                await self.look()
            except Exception as error:
                _log.warning("prefect: launches could not be looked at", error=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Take what is due."""
        soon = datetime.now(UTC) + timedelta(seconds=LOOK_SECONDS / 2)
        due = await self._client.get_scheduled_flow_runs_for_deployments(list(self._known), scheduled_before=soon)
        for run in due:
            if run.id not in self._running and run.deployment_id in self._known and await self._taken(run):
                task = asyncio.create_task(self._make(run, self._known[run.deployment_id]))
                self._running[run.id] = task
                task.add_done_callback(lambda _, name=run.id: self._running.pop(name, None))  # type: ignore[misc]

    async def stop(self) -> None:
        """Wait for no launch: what one has begun is in the journal."""
        for task in tuple(self._running.values()):
            task.cancel()
        if self._running:
            await asyncio.wait(tuple(self._running.values()), timeout=1.0)

    async def _taken(self, run: FlowRun) -> bool:
        """Of all who look, the server lets one have it: from Pending it goes to Pending for nobody."""
        answer: Any = await self._client.set_flow_run_state(run.id, Pending(message="taken by a responder"))
        return answer.status is SetStateStatus.ACCEPT

    async def _again(self) -> None:
        """Launches that a process took and died with, before they had an incident, are launched again."""
        wanted = FlowRunFilter.model_validate(
            {
                "deployment_id": {"any_": list(self._known)},
                "state": {"type": {"any_": [StateType.PENDING]}},
            }
        )
        before = datetime.now(UTC) - _FORGOTTEN
        for run in await self._client.read_flow_runs(flow_run_filter=wanted, limit=200):
            begun = any(tag.startswith("incident:") for tag in run.tags)
            if not begun and run.id not in self._running and run.state and run.state.timestamp < before:
                await self._client.set_flow_run_state(run.id, Scheduled(), force=True)

    async def _make(self, run: FlowRun, declared: Declared) -> None:
        try:
            if declared.drill:
                await self._drill(run, declared.drill)
                return
            asked = {str(name): str(value) for name, value in run.parameters.items() if value is not None}
            error = await self._engine.launch(run.id, declared.playbook, asked)
            if error:
                await self._client.set_flow_run_state(run.id, Failed(message=error), force=True)
        except ClawbackError as error:
            await self._client.set_flow_run_state(run.id, Failed(message=error.message), force=True)
        except Exception as error:
            _log.warning("prefect: a launch was not made", run=str(run.id), error=type(error).__name__)

    async def _drill(self, run: FlowRun, name: str) -> None:
        await self._client.set_flow_run_state(run.id, Running())
        began = time.monotonic()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "clawback", "drill", "run", name,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said: deque[str] = deque(maxlen=_SHOWN_LINES)
        try:
            async with asyncio.timeout(_DRILL_SECONDS):
                assert child.stdout is not None  # noqa: S101 - piped above
                async for line in child.stdout:
                    said.append(line.decode("utf-8", "replace").rstrip()[:500])
                status = await child.wait()
        except TimeoutError:
            child.kill()
            status = await child.wait()
        except asyncio.CancelledError:
            child.kill()
            raise
        _log.info("drill ended", drill=name, status=status, seconds=round(time.monotonic() - began, 1))
        text = "\n".join(said) or json.dumps({"status": status})
        await self._client.set_flow_run_state(
            run.id, Completed(message=text) if status == 0 else Failed(message=text), force=True
        )
