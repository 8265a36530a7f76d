"""Puts one connection's decisions into the telemetry and the metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from clawback.enforcement.gateway.case import CallerOf
from clawback.enforcement.gateway.target import Target
from clawback.model import Decision, Severity

if TYPE_CHECKING:
    from clawback.enforcement.gateway.agents import Agent
    from clawback.enforcement.gateway.server import Gateway

__all__ = ["Telling"]


class Telling:
    """`caller` is asked for its name each time: it may have become known meanwhile."""

    def __init__(self, gateway: Gateway, agent: Agent, caller: CallerOf) -> None:
        self._gateway = gateway
        self._agent = agent
        self._caller = caller

    async def record(self, target: Target, decision: Decision, number: str, severity: Severity) -> bool:
        """Nothing leaves, and nothing is answered at full speed, without a record: an agent that floods is slowed."""
        self._count(target, decision)
        for _ in range(20):
            if self._write(target, decision, number, severity):
                return True
            await asyncio.sleep(0.1)
        return False

    def at_once(self, target: Target, denied: Decision, number: str, severity: Severity) -> None:
        """The same where nothing can be waited for: the connection is ending."""
        self._count(target, denied)
        self._write(target, denied, number, severity)

    def _count(self, target: Target, decision: Decision) -> None:
        self._gateway.count(decision)
        if not decision.orders:
            return
        endpoint = self._gateway.orders.ruling(self._agent.subject, target).endpoint
        if endpoint is not None:
            said = f"refused by {decision.rule}"
            self._gateway.records.inference(self._agent.agent, self._agent.instance, target, endpoint, (), said)

    def _write(self, target: Target, decision: Decision, number: str, severity: Severity) -> bool:
        agent = self._agent
        return self._gateway.records.decision(
            agent.agent, agent.instance, target, decision, number, severity=severity, caller=self._caller.said
        )
