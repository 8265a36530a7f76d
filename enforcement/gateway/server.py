"""The gateway itself: attached agents, policies in force, destinations, records, held together for one event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from clawback.enforcement.gateway.agents import Agent
from clawback.enforcement.gateway.asking import Asking
from clawback.enforcement.gateway.authority import Authority
from clawback.enforcement.gateway.destinations import Destinations
from clawback.enforcement.gateway.holding import Queue
from clawback.enforcement.gateway.limits import Limits
from clawback.enforcement.gateway.local_models import LocalModels
from clawback.enforcement.gateway.metrics import Metrics
from clawback.enforcement.gateway.order_store import OrderStore
from clawback.enforcement.gateway.policies import ActivePolicies, Judged
from clawback.enforcement.gateway.records import Records
from clawback.enforcement.gateway.sockets import AbortWatch
from clawback.enforcement.gateway.standing import Standing, above
from clawback.enforcement.gateway.target import Target
from clawback.enforcement.policy.endpoint_engine import Programs
from clawback.enforcement.policy.names import Address
from clawback.enforcement.policy.order_calls import Content
from clawback.enforcement.policy.store import PolicyStore
from clawback.model import Decision, InferenceEndpoint, Lifecycle, Subject

__all__ = ["Gateway"]

_HEARTBEAT_SECONDS = 5.0


class Gateway:
    """Made inside a running loop; `start`, then `attach` agents, then `stop`."""

    def __init__(
        self,
        state: Path,
        *,
        resolve: Mapping[str, str],
        allow_private: Sequence[str],
        upstream_ca: Path | None = None,
        limits: Limits | None = None,
        inference: Sequence[InferenceEndpoint] = (),
        queue_seconds: float = 120.0,
    ) -> None:
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.records = Records(state / "telemetry", self.metrics)
        self.destinations = Destinations(resolve, allow_private, upstream_ca)
        self.authority = Authority(state)
        self.asking = Asking()
        self.policies = ActivePolicies(
            PolicyStore(state / "policies"), self.records, self.metrics, self._enforce_on_open
        )
        self.orders = Standing(OrderStore(state / "orders"), inference, self._enforce_orders, self.policies.models)
        self.local_models = LocalModels(lambda: self.orders.inference, self.destinations, self.records.routing)
        self.queue = Queue(queue_seconds)
        self.aborts = AbortWatch(asyncio.get_running_loop())
        self.agents: dict[str, Agent] = {}  # by instance
        self.cut: dict[str, str] = {}  # agent → why
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Bring the policies into force and keep them so."""
        self.records.lifecycle(Lifecycle.START, "started")
        await self.policies.start()
        following = (self.policies.follow(), self._heartbeat(), self.local_models.follow())
        self._tasks = [asyncio.ensure_future(one) for one in following]

    async def stop(self) -> None:
        """End everything. Agents lose their connections and keep their listeners, which the core holds too."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for agent in list(self.agents.values()):
            agent.detach()
            for connection in list(agent.connections):
                await connection.over()
        self.agents.clear()
        self.asking.close()
        self.aborts.close()
        self.destinations.close()
        self.records.lifecycle(Lifecycle.STOP, "stopped")
        self.records.close()

    def attach(self, subject: Subject, instance: str, policy: str, listeners: list[socket.socket]) -> None:
        """Serve this agent's listeners. Again for a known instance: the new listeners replace the old ones."""
        known = self.agents.get(instance)
        if known is None or (known.subject, known.policy) != (subject, policy):
            if known is not None:
                known.detach()
            known = self.agents[instance] = Agent(self, subject, instance, policy)
        known.listen(listeners)
        self.metrics.agents.set(len(self.agents))

    def detach(self, instance: str) -> bool:
        """Stop serving an instance and end its connections; False where it was not attached."""
        agent = self.agents.pop(instance, None)
        if agent is not None:
            agent.detach()
        self.metrics.agents.set(len(self.agents))
        return agent is not None

    def cut_off(self, agent: str, reason: str) -> int:
        """Refuse all that an agent asks for, and reset what it has open; how many connections that were."""
        self.cut[agent] = reason
        return sum(one.reset_connections("agent was cut off") for one in self.agents.values() if one.agent == agent)

    def reconnect(self, agent: str) -> bool:
        """Take a cut back; False where there was none."""
        return self.cut.pop(agent, None) is not None

    def judge(
        self,
        agent: Agent,
        target: Target,
        programs: Programs | None = None,
        content: Content | None = None,
        addresses: tuple[Address, ...] = (),
    ) -> Judged:
        """By the orders and then the version in force, unless the agent is cut off."""
        if agent.agent in self.cut:
            version = self.policies.versions().get(agent.policy, 0)
            cut = Decision(
                allowed=False, rule="", reason="agent is cut off", policy=agent.policy, policy_version=version
            )
            return Judged(cut)
        return self.judge_by(agent.policy, agent.subject, target, programs, content, addresses)

    def judge_by(
        self,
        policy: str,
        subject: Subject,
        target: Target,
        programs: Programs | None = None,
        content: Content | None = None,
        addresses: tuple[Address, ...] = (),
    ) -> Judged:
        """The same for an agent that may not be there."""
        judged = self.policies.judge(
            policy,
            host=target.host,
            port=target.port,
            method=target.method,
            path=target.path,
            programs=programs,
            body=content.data if content is not None else None,
        )
        return above(self.orders.ruling(subject, target, content, addresses), judged, target)

    def count(self, decision: Decision) -> None:
        """Into the metrics."""
        result = "allowed" if decision.allowed else "denied"
        rule = "order" if decision.orders else decision.rule  # their ids are ever new, and a label is for ever
        self.metrics.decisions.labels(decision.policy, rule, result).inc()
        if not decision.rule:
            self.metrics.unmatched.labels(decision.policy).inc()

    def _enforce_on_open(self, policy: str) -> None:
        """A new version holds for what is already open, too: what it denies is reset."""
        self.orders.policies_changed()
        self._enforce_orders()
        for agent in self.agents.values():
            if agent.policy != policy:
                continue
            for connection in list(agent.connections):
                if connection.flow is None:
                    continue
                judged = connection.judge(connection.flow.target)
                allowed = judged.decision.allowed or judged.wants_body  # a body that was let through has been seen
                if not allowed or judged.decision.inspect:  # a tunnel that was blind, and may no longer be
                    connection.abort("denied by the new policy version")

    def _enforce_orders(self) -> int:
        """What the orders deny is reset, where it is open; how many connections that were."""
        return sum(
            connection.enforce_orders() for agent in self.agents.values() for connection in list(agent.connections)
        )

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            self.records.lifecycle(Lifecycle.OTHER, "alive")
            versions = self.policies.versions()
            for policy, latency in self.policies.latencies.take().items():
                self.records.decided(policy, versions.get(policy, 0), latency)
            for agent in list(self.agents.values()):
                self.records.alive(agent.agent, agent.instance)
