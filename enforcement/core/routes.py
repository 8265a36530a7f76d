"""The core's calls, one row each: method and path, the verb it takes, and what is done.

    GET  /healthz  /metrics  /agents  /agents/AGENT  /agents/AGENT/wait?instance=  /agents/AGENT/probe?level=&instance=
    POST /agents  /quarantines  /strikes  /agents/AGENT/contain  …/release  …/relaunch  …/attempt  …/evidence
    GET  /halts  /halts/HALT     POST /halts  /halts/HALT/lift

Freezing and isolating have threads of their own, so that no launch and no evidence ever stands before a freeze, and one
agent's freeze that the kernel is slow to grant does not stand before another's. So have starts and evidence: whoever
may only launch cannot keep an order waiting. `calls.Calls` bounds what one user has under way.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from clawback.enforcement.core import wire
from clawback.enforcement.core.peers import Permissions
from clawback.enforcement.core.service import Service
from clawback.enforcement.core.stdio import StdioDesk
from clawback.errors import InvalidInput
from clawback.model import Level
from clawback.urgency import go_first

__all__ = ["Call", "Handler", "Routes"]

T = TypeVar("T")

_BODY_SECONDS = 10.0
_IMMEDIATE = frozenset({Level.FREEZE, Level.ISOLATE})


@dataclass(frozen=True, slots=True)
class Call:
    """One request, let in: `agent` is the path's second part (or a halt's id), `uid` the caller's by the kernel."""

    request: Request
    agent: str
    uid: int

    async def body(self) -> bytes:
        """All of it. `InvalidInput` where it is too large, or does not come within ten seconds."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for part in self.request.stream():
                    size += len(part)
                    if size > wire.MAX_BODY:
                        raise InvalidInput(f"body: more than {wire.MAX_BODY} bytes")
                    parts.append(part)
        except TimeoutError:
            raise InvalidInput(f"body: not all of it came within {_BODY_SECONDS:g} s") from None
        return b"".join(parts)


Handler = Callable[[Call], Awaitable[Response]]


class Routes:
    """`table` is (method, path with `*` for a name) → (verb, handler)."""

    def __init__(self, service: Service, stdio: StdioDesk, permissions: Permissions) -> None:
        self._permissions = permissions
        self._service = service
        self._stdio = stdio
        self._workers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="core")
        self._starts = ThreadPoolExecutor(max_workers=8, thread_name_prefix="starts")
        self._strikes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="strikes", initializer=go_first)
        self._reflex = ThreadPoolExecutor(max_workers=4, thread_name_prefix="reflex", initializer=go_first)
        self.table: dict[tuple[str, str], tuple[str, Handler]] = {
            ("GET", "/healthz"): ("health", self._health),
            ("GET", "/metrics"): ("metrics", self._metrics),
            ("GET", "/agents"): ("agents", self._agents),
            ("POST", "/agents"): ("launch", self._launch),
            ("GET", "/agents/*"): ("agents", self._agent),
            ("GET", "/agents/*/wait"): ("wait", self._wait),
            ("GET", "/agents/*/probe"): ("probe", self._probe),
            ("POST", "/agents/*/contain"): ("contain", self._contain),
            ("POST", "/agents/*/quarantine"): ("contain", self._quarantine),
            ("POST", "/quarantines"): ("contain", self._quarantine_many),
            ("POST", "/strikes"): ("contain", self._strike),
            ("POST", "/agents/*/release"): ("release", self._release),
            ("POST", "/agents/*/relaunch"): ("relaunch", self._relaunch),
            ("POST", "/agents/*/attempt"): ("attempt", self._attempt),
            ("POST", "/agents/*/evidence"): ("evidence", self._evidence),
            ("GET", "/halts"): ("agents", self._halts),
            ("POST", "/halts"): ("halt", self._halt),
            ("GET", "/halts/*"): ("agents", self._halt_report),
            ("POST", "/halts/*/lift"): ("lift", self._lift),
        }

    def close(self) -> None:
        """Let what runs in the worker threads end."""
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._starts.shutdown(wait=True, cancel_futures=True)
        self._strikes.shutdown(wait=True)
        self._reflex.shutdown(wait=True)

    async def _work(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def _start(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._starts, work)

    async def _health(self, _call: Call) -> Response:
        health = self._service.health.read()
        return _json(json.dumps(health).encode(), 200 if health["status"] == "ok" else 503)

    async def _metrics(self, _call: Call) -> Response:
        page = self._service.parts.metrics.render()
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _agents(self, _call: Call) -> Response:
        return _json(wire.AGENTS.dump_json(self._service.parts.agents()))

    async def _agent(self, call: Call) -> Response:
        return _json(wire.AGENT.dump_json(self._service.parts.agent(call.agent)))

    async def _launch(self, call: Call) -> Response:
        body = wire.read(wire.LaunchBody, await call.body())
        stdio = self._stdio.claim(body.stdio, call.uid) if body.stdio else None
        info = await self._start(lambda: self._service.starts.launch(body.spec, stdio=stdio))
        return _json(wire.AGENT.dump_json(info), 201)

    async def _contain(self, call: Call) -> Response:
        body = wire.read(wire.ContainBody, await call.body())

        def contain() -> Any:
            return self._service.orders.contain(
                call.agent,
                body.level,
                instance=body.instance,
                reason=body.reason,
                by=body.by,
                uid=call.uid,
                incident=body.incident,
                due_ns=_due(body.due_seconds),
                allow=body.allow,
                readable=body.readable,
            )

        pool = self._reflex if body.level in _IMMEDIATE else self._workers
        result = await asyncio.get_running_loop().run_in_executor(pool, contain)
        return _json(wire.RESULT.dump_json(result))

    async def _quarantine(self, call: Call) -> Response:
        body = wire.read(wire.QuarantineBody, await call.body())

        def quarantine() -> Any:
            return self._service.orders.quarantine(
                call.agent,
                body.levels,
                instance=body.instance,
                reason=body.reason,
                by=body.by,
                uid=call.uid,
                incident=body.incident,
            )

        made = await asyncio.get_running_loop().run_in_executor(self._reflex, quarantine)
        return _json(wire.QUARANTINE.dump_json(made))

    async def _quarantine_many(self, call: Call) -> Response:
        body = wire.read(wire.QuarantinesBody, await call.body())

        def quarantine() -> Any:
            return self._service.orders.quarantine_many([one.order for one in body.orders], by=body.by, uid=call.uid)

        made = await asyncio.get_running_loop().run_in_executor(self._reflex, quarantine)
        return _json(wire.QUARANTINES.dump_json(made))

    async def _strike(self, call: Call) -> Response:
        body = wire.read(wire.StrikeBody, await call.body())

        def strike() -> Any:
            return self._service.strikes.strike(body.agents, drills=body.drills)

        struck = await asyncio.get_running_loop().run_in_executor(self._strikes, strike)
        return _json(wire.AGENTS.dump_json(struck))

    async def _probe(self, call: Call) -> Response:
        asked = call.request.query_params
        try:
            level = wire.level(asked.get("level", ""))
        except ValueError as error:
            raise InvalidInput(f"level: {error}") from None
        instance = asked.get("instance", "")
        result = await self._work(lambda: self._service.probe(call.agent, level, instance=instance))
        return _json(wire.RESULT.dump_json(result))

    async def _release(self, call: Call) -> Response:
        body = wire.read(wire.ReleaseBody, await call.body())
        results = await self._work(
            lambda: self._service.orders.release(
                call.agent,
                levels=body.levels,
                reason=body.reason,
                by=body.by,
                uid=call.uid,
                incident=body.incident,
                everyone=body.everyone,
            )
        )
        return _json(wire.RESULTS.dump_json(results))

    async def _relaunch(self, call: Call) -> Response:
        body = wire.read(wire.RelaunchBody, await call.body())
        info = await self._start(
            lambda: self._service.starts.relaunch(
                call.agent,
                policy_version=body.policy_version,
                policy_text=body.policy_text,
                policy=body.policy,
                reason=body.reason,
                by=body.by,
            )
        )
        return _json(wire.AGENT.dump_json(info), 201)

    async def _attempt(self, call: Call) -> Response:
        body = wire.read(wire.AttemptBody, await call.body())
        results = await self._work(lambda: self._service.try_inside(call.agent, body.attempts))
        return _json(wire.ATTEMPTS.dump_json(results))

    async def _evidence(self, call: Call) -> Response:
        body = wire.read(wire.EvidenceBody, await call.body())
        if body.memory:
            self._permissions.check(call.uid, "memory")
        if body.transcripts:
            self._permissions.check(call.uid, "transcripts")
        bundle = await self._start(
            lambda: self._service.snapshots.collect(
                call.agent, incident=body.incident, memory=body.memory, transcripts=body.transcripts
            )
        )
        return _json(wire.BUNDLE.dump_json(bundle), 201)

    async def _wait(self, call: Call) -> Response:
        status = await self._service.ends.wait(call.agent, call.request.query_params.get("instance", ""))
        return _json(json.dumps({"exit_status": status}).encode())

    async def _halts(self, _call: Call) -> Response:
        return _json(wire.HALTS.dump_json(self._service.parts.halts.all()))

    async def _halt(self, call: Call) -> Response:
        body = wire.read(wire.HaltBody, await call.body())

        def halt() -> Any:
            return self._service.halting.halt(
                body.selector,
                body.level,
                reason=body.reason,
                by=body.by,
                uid=call.uid,
                incident=body.incident,
                due_ns=_due(body.due_seconds),
            )

        report = await asyncio.get_running_loop().run_in_executor(self._reflex, halt)
        return _json(wire.HALT.dump_json(report), 201)

    async def _halt_report(self, call: Call) -> Response:
        return _json(wire.HALT.dump_json(await self._work(lambda: self._service.halting.report(call.agent))))

    async def _lift(self, call: Call) -> Response:
        body = wire.read(wire.LiftBody, await call.body())
        halted = await self._work(
            lambda: self._service.halting.lift(call.agent, reason=body.reason, by=body.by, uid=call.uid)
        )
        return _json(wire.HALTED.dump_json(halted))


def _due(seconds: float) -> int:
    return time.time_ns() + int(seconds * 1e9) if seconds else 0


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status_code=status, media_type="application/json")
