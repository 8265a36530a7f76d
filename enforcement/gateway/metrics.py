"""What the gateway counts, for `/metrics`. Labels come from policy files, never from what an agent sent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]


class Metrics:
    """One registry of its own, so that two gateways in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Counter(
            "clawback_gateway_decisions", "decisions", ("policy", "rule", "result"), registry=self.registry
        )
        self.unmatched = Counter(
            "clawback_gateway_unmatched", "denials that no rule names", ("policy",), registry=self.registry
        )
        self.decision_seconds = Histogram(
            "clawback_gateway_decision_seconds",
            "time to decide one request",
            buckets=(1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2),
            registry=self.registry,
        )
        self.policy_version = Gauge(
            "clawback_gateway_policy_version", "active version", ("policy",), registry=self.registry
        )
        self.policy_loaded = Gauge(
            "clawback_gateway_policy_loaded_timestamp_seconds",
            "when it became active",
            ("policy",),
            registry=self.registry,
        )
        self.reload_seconds = Histogram(
            "clawback_gateway_policy_reload_seconds", "time to take a policy change", registry=self.registry
        )
        self.edits_refused = Counter(
            "clawback_gateway_policy_edits_refused",
            "policy edits that were not sound",
            ("policy",),
            registry=self.registry,
        )
        self.bytes = Counter("clawback_gateway_bytes", "bytes proxied", ("direction",), registry=self.registry)
        self.connections = Gauge("clawback_gateway_connections", "agents' open connections", registry=self.registry)
        self.agents = Gauge("clawback_gateway_agents", "attached agents", registry=self.registry)
        self.orders = Gauge("clawback_gateway_orders", "orders that stand", registry=self.registry)
        self.held = Gauge("clawback_gateway_held", "requests that orders have wait", registry=self.registry)
        self.lost = Gauge("clawback_gateway_telemetry_lost", "events not written", registry=self.registry)

    def render(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
