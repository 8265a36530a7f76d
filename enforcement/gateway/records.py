"""Writes what the gateway decides and carries to `STATE/telemetry/policy.jsonl`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clawback.enforcement.gateway.latency import Latency
from clawback.enforcement.gateway.metrics import Metrics
from clawback.enforcement.gateway.target import Target
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.log import redact_text
from clawback.model import (
    Decision,
    Disposition,
    EgressOrder,
    HttpActivity,
    InferenceEndpoint,
    Lifecycle,
    NetworkActivity,
    PolicyChange,
    PolicyVersion,
    RouteActivity,
    Sensitivity,
    Severity,
    Source,
)

__all__ = ["Flow", "Records"]

_BURST_BYTES = 64 * 1024
_TRAFFIC_SECONDS = 0.05
_MAX_CALLER = 200
_ACTIVITY = {
    "CONNECT": 1, "DELETE": 2, "GET": 3, "HEAD": 4, "OPTIONS": 5, "POST": 6, "PUT": 7, "TRACE": 8, "PATCH": 9
}  # fmt: skip  # OCSF 4002; anything else is 99


class Records:
    """The policy stream. A gateway's honest load is well above an agent's share of the writer's usual rate."""

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        self.writer = TelemetryWriter(folder, Source.POLICY, rate=2000.0, burst=5000.0)
        self.routing = TelemetryWriter(folder, Source.ROUTING)
        self.metrics = metrics

    def decision(
        self,
        agent: str,
        instance: str,
        target: Target,
        decision: Decision,
        connection: str,
        *,
        severity: Severity = Severity.MEDIUM,
        caller: str = "",
    ) -> bool:
        """One request's decision; `severity` is a denial's, `caller` the programs that called, where that was asked.

        False where it could not be recorded.
        """
        blocked = not decision.allowed
        common: dict[str, Any] = {
            "agent": agent,
            "instance": instance,
            "severity": severity if blocked else Severity.INFORMATIONAL,
            "disposition": Disposition.BLOCKED if blocked else Disposition.ALLOWED,
            "policy": decision.policy,
            "policy_version": decision.policy_version,
            "host": target.host,
            "port": target.port,
            "connection": connection,
            "rule": decision.rule,
            "reason": decision.reason,
            "message": f"decided by {decision.level}" + (f", for {caller[:_MAX_CALLER]}" if caller else ""),
        }
        if target.method == "CONNECT":
            activity = NetworkActivity.REFUSE if blocked else NetworkActivity.OPEN
            return self.writer.emit(NetworkActivity, activity_id=activity, **common) is not None
        written = self.writer.emit(
            HttpActivity,
            activity_id=_ACTIVITY.get(target.method, 99),
            method=target.method,
            path=redact_text(target.path),
            calls=tuple(redact_text(call) for call in decision.calls),
            status=403 if blocked else 0,
            **common,
        )
        return written is not None

    def inference(
        self, agent: str, instance: str, target: Target, endpoint: InferenceEndpoint, found: Sequence[str], said: str
    ) -> None:
        """An order kept a query from a model, for good or for now. Where nothing was looked for, confidence is 0."""
        self.routing.emit(
            RouteActivity,
            activity_id=RouteActivity.CREATE,
            severity=Severity.MEDIUM,
            disposition=Disposition.BLOCKED,
            agent=agent,
            instance=instance,
            model="",
            endpoint=f"{target.host}:{target.port}",
            destination=endpoint.kind.value,
            sensitivity=Sensitivity.RESTRICTED if found else Sensitivity.INTERNAL,
            confidence=1.0 if found else 0.0,
            data_types=tuple(found),
            message=said,
        )

    def echoed(self, flow: Flow, count: int) -> None:
        """A destination sent an agent's credential back, and it was blotted out `count` times."""
        self.writer.emit(
            NetworkActivity,
            activity_id=NetworkActivity.TRAFFIC,
            severity=Severity.HIGH,
            disposition=Disposition.BLOCKED,
            agent=flow.agent,
            instance=flow.instance,
            policy=flow.decision.policy,
            policy_version=flow.decision.policy_version,
            host=flow.target.host,
            port=flow.target.port,
            connection=flow.connection,
            rule=flow.decision.rule,
            reason=f"the answer had the agent's credential in it {count} times; blotted out",
        )

    def change(self, version: PolicyVersion, previous: int, widened: tuple[str, ...] = ()) -> None:
        """A version became active; `widened` is what it allows beyond the newest known-good one."""
        self.writer.emit(
            PolicyChange,
            activity_id=PolicyChange.LOG,
            severity=Severity.MEDIUM if widened else Severity.INFORMATIONAL,
            widened=widened,
            disposition=Disposition.ALLOWED,
            policy=version.policy,
            policy_version=version.version,
            previous_version=previous,
            sha256=version.sha256,
            author=version.author,
            reason=version.reason,
        )

    def order(self, order: EgressOrder, what: str, *, by: str, reason: str) -> None:
        """An order was placed or lifted."""
        self.writer.emit(
            PolicyChange,
            activity_id=PolicyChange.LOG,
            disposition=Disposition.ALLOWED,
            policy="orders",
            author=by,
            reason=reason,
            message=f"order {order.id} {what}: {order.what}, for {order.scope}",
        )

    def change_refused(self, policy: str, active: int, *, sha256: str, author: str, why: str) -> None:
        """An edit was not sound; `active` stays in force."""
        self.metrics.edits_refused.labels(policy).inc()
        self.writer.emit(
            PolicyChange,
            activity_id=PolicyChange.LOG,
            severity=Severity.MEDIUM,
            disposition=Disposition.BLOCKED,
            policy=policy,
            policy_version=active,
            previous_version=active,
            sha256=sha256,
            author=author,
            reason=why,
        )

    def close(self) -> None:
        """Write no more."""
        self.writer.close()
        self.routing.close()

    def lifecycle(self, activity: int, status: str) -> None:
        """The gateway started, lives, or stops."""
        lost = self.writer.take_lost("")
        self.metrics.lost.set(self.writer.lost_total)
        self.writer.emit(Lifecycle, activity_id=activity, component="gateway", status=status, lost=lost)

    def decided(self, policy: str, version: int, latency: Latency) -> None:
        """How long the policy engine took for one policy's decisions since this was last written."""
        self.writer.emit(
            Lifecycle,
            activity_id=Lifecycle.OTHER,
            component="policy-engine",
            status="alive",
            policy=policy,
            policy_version=version,
            decisions=latency.decisions,
            slow=latency.slow,
            p99_ms=latency.p99_ms,
        )

    def alive(self, agent: str, instance: str) -> None:
        """One attached agent's losses and denials."""
        self.writer.emit(
            Lifecycle,
            activity_id=Lifecycle.OTHER,
            agent=agent,
            instance=instance,
            component="gateway",
            status="alive",
            lost=self.writer.take_lost(agent),
            violations=self.writer.violations.last_hour(agent),
        )


@dataclass(slots=True, kw_only=True)
class Flow:
    """One allowed exchange or tunnel: its bytes written to (`sent`) and read from (`received`) the destination."""

    records: Records
    agent: str
    instance: str
    target: Target
    decision: Decision
    connection: str
    sent: int = 0
    received: int = 0
    active_at: float = field(default_factory=time.monotonic)
    _reported: int = 0
    _reported_at: float = 0.0

    def count(self, *, sent: int = 0, received: int = 0) -> None:
        """Add bytes; reports them when they are many: at 64 KiB first, then every 50 ms while they grow by as much."""
        self.sent += sent
        self.received += received
        self.active_at = now = time.monotonic()
        if self.sent + self.received - self._reported >= _BURST_BYTES and now - self._reported_at >= _TRAFFIC_SECONDS:
            self._report(NetworkActivity.TRAFFIC, "")
            self._reported, self._reported_at = self.sent + self.received, now

    def close(self, why: str) -> None:
        """Report the totals."""
        self._report(NetworkActivity.CLOSE, why)
        self.records.metrics.bytes.labels("out").inc(self.sent)
        self.records.metrics.bytes.labels("in").inc(self.received)

    def _report(self, activity: int, why: str) -> None:
        self.records.writer.emit(
            NetworkActivity,
            activity_id=activity,
            agent=self.agent,
            instance=self.instance,
            disposition=Disposition.LOGGED,
            policy=self.decision.policy,
            policy_version=self.decision.policy_version,
            host=self.target.host,
            port=self.target.port,
            connection=self.connection,
            bytes_out=self.sent,
            bytes_in=self.received,
            rule=self.decision.rule,
            reason=why,
        )
