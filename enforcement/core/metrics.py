"""What the core counts, in Prometheus' text form."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clawback.model import LevelResult

__all__ = ["Metrics", "Snapshot"]

_MOST_AGENTS = 500  # labels by agent are bounded: whoever can launch agents must not fill the monitoring system

Snapshot = Callable[[], tuple[dict[str, int], dict[str, int], dict[str, int], int]]
"""Returns agents by state, violations of the last hour by agent, telemetry lost by reason, telemetry written."""

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Metrics:
    """A registry of its own, so that nothing else of the process shows in it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._containments = Counter(
            "clawback_containments",
            "Levels applied, by level and how much was observed to hold.",
            ["level", "enforcement"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "clawback_level_seconds",
            "Time from the order to the level read back.",
            ["level"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.drifts = Counter(
            "clawback_hold_drifts", "Holds found not to hold and asserted again.", registry=self._registry
        )

    def watch(self, snapshot: Snapshot) -> None:
        """Read the gauges from here whenever the page is asked for."""
        self._registry.register(_Live(snapshot))

    def contained(self, result: LevelResult, seconds: float) -> None:
        """Count one applied level."""
        self._containments.labels(result.level.word, result.enforcement.value).inc()
        self._latency.labels(result.level.word).observe(seconds)

    def render(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)


class _Live(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        states, violations, lost, written = self._snapshot()
        agents = GaugeMetricFamily("clawback_agents", "Agents by state.", labels=["state"])
        for state, count in states.items():
            agents.add_metric([state], count)
        yield agents
        hourly = GaugeMetricFamily(
            "clawback_violations_last_hour", "Denials in the last hour, of the agents with most.", labels=["agent"]
        )
        for agent, count in sorted(violations.items(), key=lambda item: -item[1])[:_MOST_AGENTS]:
            hourly.add_metric([agent], count)
        yield hourly
        yield CounterMetricFamily(
            "clawback_telemetry_lost", "Events counted and not written.", value=sum(lost.values())
        )
        reasons = CounterMetricFamily(
            "clawback_telemetry_lost_by_reason", "The same, by where they were lost.", labels=["reason"]
        )
        for reason, count in lost.items():
            reasons.add_metric([reason], count)
        yield reasons
        yield CounterMetricFamily("clawback_telemetry_written", "Events written.", value=written)
