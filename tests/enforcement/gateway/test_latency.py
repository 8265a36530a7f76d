"""Decision times by policy: exact counts, and a percentile that is never too low and at most a tenth too high."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawback.enforcement.gateway.latency import Latencies, Latency


@given(st.lists(st.floats(1e-7, 600), min_size=1, max_size=400))
def test_the_percentile_is_close_from_above(seconds: list[float]) -> None:
    latency = Latency()
    for one in seconds:
        latency.add(one)
    exact = sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1] * 1e3
    assert exact <= latency.p99_ms * 1.0001
    assert latency.p99_ms <= max(exact * 1.1001, 0.0011)
    assert latency.slow == sum(one * 1e3 > 200 for one in seconds)


def test_taking_begins_anew() -> None:
    latencies = Latencies()
    latencies.add("a", 0.3)
    latencies.add("b", 0.001)
    taken = latencies.take()
    assert (taken["a"].decisions, taken["a"].slow, taken["b"].slow) == (1, 1, 0)
    assert latencies.take() == {}
    assert Latency().p99_ms == 0.0


def events(gateway, kind):
    lines = (gateway.state / "telemetry" / "policy.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["class_uid"] == kind]


@pytest.mark.slow
def test_the_gateway_reports_them(gateway):
    from clawback.model import Attempt

    for _ in range(20):
        gateway.client.decide("test", Attempt(kind="connect", target="good.test:443"))
    beats = gateway.until(
        lambda: [e for e in events(gateway, 6002) if e["app"]["name"] == "policy-engine" and "decided" in e["unmapped"]]
    )
    assert beats[0]["policy"] == {"name": "test", "version": "1"}
    assert beats[0]["unmapped"]["decided"]["decisions"] == 20
    assert 0 < beats[0]["unmapped"]["decided"]["p99_ms"] < 200


@pytest.mark.slow
def test_a_wider_version_is_said_to_be_one(gateway):
    gateway.client.mark_known_good("test", 1, author="soc")
    wide = gateway.policy("domain: good.test", 'domain: "*.other.test"')
    gateway.client.put("test", wide, author="dev", reason="quick fix")
    gateway.client.restore("test", 1, author="soc", reason="back")
    gateway.until(lambda: "3" in {event["policy"]["version"] for event in events(gateway, 5019)})
    found = {event["policy"]["version"]: event["unmapped"] for event in events(gateway, 5019)}
    assert any("*.other.test" in line for line in found["2"]["widened"])
    assert "widened" not in found["3"]
