"""The orders' actions on a real gateway: what they claim was seen from inside, and a lie is not claimed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from clawback.actions import (
    connector_deny,
    inference_cut,
    inference_local_only,
    inference_queue_sensitive,
    network_block_destination,
    tool_deny,
)
from clawback.enforcement.sandbox import trying
from clawback.errors import InvalidInput, NotEnforced, Unreachable
from clawback.model import (
    AgentState,
    Attempt,
    AttemptResult,
    EgressOrder,
    Enforcement,
    Level,
    OrderKind,
    Scope,
    ScopeKind,
)

pytestmark = pytest.mark.slow

ONE: list[tuple[Any, dict[str, Any]]] = [
    (network_block_destination.ACTION, {"host": "good.test"}),
    (network_block_destination.ACTION, {"host": "*.test", "port": 443}),
    (network_block_destination.ACTION, {"host": "203.0.113.0/24"}),
    (network_block_destination.ACTION, {"host": "2001:db8::/32"}),
    (network_block_destination.ACTION, {"host": "*"}),
    (tool_deny.ACTION, {"tool": "delete_*", "host": "good.test"}),
    (tool_deny.ACTION, {"tool": "delete_?ser"}),
    (tool_deny.ACTION, {"method": "DELETE", "path": "/v1/users/**", "host": "good.test"}),
    (connector_deny.ACTION, {"host": "good.test"}),
    (connector_deny.ACTION, {"host": "good.test", "path": "/mcp"}),
    (inference_cut.ACTION, {}),
    (inference_local_only.ACTION, {}),
    (inference_queue_sensitive.ACTION, {}),
]
IDS = [f"{action.id} {' '.join(map(str, params.values()))}".strip() for action, params in ONE]
each = pytest.mark.parametrize(("action", "params"), ONE, ids=IDS)


@each
def test_it_is_seen_from_inside_in_its_own_name_and_undone(gate: Any, drive: Any, action: Any, params: Any) -> None:
    step = drive(action, of="a", reason="rogue", **params)
    plan = action.plan(step.context, step.params)
    assert any(line.startswith("+ agent a: ") for line in plan.changes)
    assert "agents hit: 1: a (running)" in plan.checks[0]
    assert gate.client.orders() == ()
    seen = step.run()
    (standing,) = gate.client.orders()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL), seen.proof
    assert f"by order {standing.rule}" in seen.proof
    assert "from inside 1 of 1 agents" in seen.proof
    assert not gate.received, "no probe got through"
    assert step.run().verified, "twice is once"
    assert gate.client.orders() == (standing,)
    gate.client.place(EgressOrder(id="other", kind=OrderKind.DESTINATION, scope=Scope(ScopeKind.ALL), reason="r",
                                  by="b", host="elsewhere.test"))  # fmt: skip
    undone = step.revert()
    assert (undone.verified, undone.enforcement) == (True, Enforcement.NONE), undone.proof
    assert [one.id for one in gate.client.orders()] == ["other"], "exactly its own"


@each
def test_a_restart_of_the_gateway_changes_nothing(gate: Any, there: Any, drive: Any, action: Any, params: Any) -> None:
    step = drive(action, of="a", reason="rogue", **params)
    assert step.run().verified
    gate.kill()
    with pytest.raises(Unreachable):
        step.verify()
    gate.start()
    for info in there.core.known.values():
        gate.attach(info)
    assert step.verify().verified


@each
def test_lifted_behind_its_back_it_is_not_claimed_and_nothing_is_tried(
    gate: Any, there: Any, drive: Any, action: Any, params: Any
) -> None:
    step = drive(action, of="a", reason="rogue", **params)
    step.run()
    gate.client.lift(gate.client.orders()[0].id, reason="sabotage", by="x")
    there.core.attempt = None  # would be an error
    seen = step.verify()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)
    assert "does not stand" in seen.proof


@pytest.mark.parametrize(("scope", "of", "hit"), [("tenant", "other", "b"), ("team", "support", "a"),
                                                  ("tag", "env=prod", "b"), ("all", "", "ab")])  # fmt: skip
def test_a_wide_scope_is_seen_on_every_agent_in_it(gate: Any, drive: Any, scope: str, of: str, hit: str) -> None:
    action = network_block_destination.ACTION
    assert action.consent is False
    step = drive(action, scope=scope, of=of, host="good.test", reason="rogue")
    plan = action.plan(step.context, step.params)
    assert plan.checks[0] == f"agents hit: {len(hit)}: " + ", ".join(f"{one} (running)" for one in hit)
    assert sum("allowed at present" in check for check in plan.checks) == 2 * len(hit)
    seen = step.run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.FULL)
    assert f"from inside {len(hit)} of {len(hit)} agents" in seen.proof
    assert seen.details["seen_from_inside"] == len(hit)
    for agent in "ab":
        trying.GATEWAY_PORT = gate.ports[agent]
        denied, _ = trying.TRY["connect"]("good.test:443")
        assert denied is (agent in hit)


def test_a_held_agent_is_told_of_by_the_gateway_alone(gate: Any, there: Any, drive: Any) -> None:
    there.core.contain("b", Level.FREEZE, reason="x", by="y")
    step = drive(network_block_destination.ACTION, scope="all", host="good.test", reason="rogue")
    seen = step.run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.PARTIAL)
    assert "from inside 1 of 2 agents" in seen.proof
    assert "by the gateway's own decision alone, 1: b (held at freeze)" in seen.proof


@pytest.mark.parametrize("of", ["gone", "b"])
def test_an_agent_that_is_not_there_too(gate: Any, there: Any, drive: Any, of: str) -> None:
    there.core.known["b"] = replace(there.core.known["b"], state=AgentState.EXITED, exit_status=0)
    seen = drive(tool_deny.ACTION, of=of, tool="x", reason="rogue").run()
    assert (seen.verified, seen.enforcement) == (True, Enforcement.PARTIAL)
    assert ("no such agent" if of == "gone" else "b (exited)") in seen.proof


def test_an_agent_that_ended_meanwhile_and_one_that_cannot_be_tried(gate: Any, there: Any, drive: Any) -> None:
    def broken(_agent: str, _attempts: Any) -> Any:
        raise NotEnforced("the attempt ended without an outcome")

    there.core.attempt = broken
    step = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue")
    seen = step.run()
    assert not seen.verified
    assert "could not be tried" in seen.proof

    def gone(agent: str, attempts: Any) -> Any:
        there.core.known["a"] = replace(there.core.known["a"], state=AgentState.EXITED)
        return broken(agent, attempts)

    there.core.attempt = gone
    assert step.verify().enforcement is Enforcement.PARTIAL


@pytest.mark.parametrize(
    ("detail", "denied", "verified", "level"),
    [
        ("HTTP 200 OK", False, False, Enforcement.NONE),
        ("HTTP 403 Forbidden", True, True, Enforcement.PARTIAL),
        ("HTTP 403 Forbidden, by order order:another", True, True, Enforcement.PARTIAL),
        ("ECONNREFUSED", True, True, Enforcement.PARTIAL),
        ("no answer from the gateway", False, False, Enforcement.NONE),
    ],
)
def test_what_is_seen_inside_decides(
    gate: Any, there: Any, drive: Any, detail: str, denied: bool, verified: bool, level: Enforcement
) -> None:
    there.core.attempt = lambda _agent, attempts: tuple(
        AttemptResult(attempt=one, denied=denied, detail=detail) for one in attempts
    )
    seen = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue").run()
    assert (seen.verified, seen.enforcement) == (verified, level), seen.proof


class Answers:
    """The gateway's client, but for what a test replaces."""

    def __init__(self, client: Any, **instead: Any) -> None:
        self._client = client
        self.__dict__.update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_an_answer_without_effect_is_not_claimed(gate: Any, there: Any, drive: Any) -> None:
    there.world = replace(there.world, orders_or_none=Answers(gate.client, place=lambda order: (order, 3)))
    seen = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue").run()
    assert (seen.verified, seen.enforcement) == (False, Enforcement.NONE)


def test_an_order_that_stands_and_decides_nothing_is_not_claimed(gate: Any, there: Any, drive: Any) -> None:
    step = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue")
    step.run()
    standing = gate.client.orders()
    gate.client.lift(standing[0].id, reason="sabotage", by="x")
    there.world = replace(there.world, orders_or_none=Answers(gate.client, orders=lambda: standing))
    step = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue")
    step.outcome = {"denies": standing[0].what, "scope": str(standing[0].scope)}
    seen = step.verify()
    assert not seen.verified
    assert "NOT denied: a: connect good.test:443: the gateway allows it" in seen.proof
    assert not gate.received, "it was not tried for real"


def test_a_lift_that_did_nothing_is_no_revert(gate: Any, there: Any, drive: Any) -> None:
    step = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue")
    step.run()
    there.world = replace(there.world, orders_or_none=Answers(gate.client, lift=lambda *_, **__: None))
    again = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue")
    again.captured = step.captured
    undone = again.revert()
    assert (undone.verified, undone.enforcement) == (False, Enforcement.FULL)


def test_two_incidents_orders_are_each_ones_own(gate: Any, drive: Any, make_incident: Any) -> None:
    first = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue")
    second = drive(
        network_block_destination.ACTION, on=make_incident(id="INC-2"), of="a", host="good.test", reason="rogue"
    )
    assert first.run().enforcement is Enforcement.FULL
    assert second.run().enforcement is Enforcement.FULL, "both are named"
    undone = first.revert()
    assert undone.verified
    assert "other orders deny the same: INC-2." in undone.proof
    assert second.verify().enforcement is Enforcement.FULL


def test_what_is_not_sound_fails_with_its_field(gate: Any, drive: Any) -> None:
    with pytest.raises(InvalidInput, match="order: host: "):
        drive(network_block_destination.ACTION, of="a", host="http://evil", reason="rogue").run()
    with pytest.raises(ValueError, match="which one is not said"):
        drive(network_block_destination.ACTION, host="evil.test", reason="rogue")
    with pytest.raises(ValueError, match="method, path and host"):
        drive(tool_deny.ACTION, of="a", tool="x", path="/x", reason="rogue")


def test_an_inference_order_without_an_endpoint_is_not_claimed(gate: Any, there: Any, drive: Any) -> None:
    step = drive(inference_cut.ACTION, of="a", reason="rogue")
    step.run()
    there.world = replace(there.world, orders_or_none=Answers(gate.client, inference=tuple))
    step = drive(inference_cut.ACTION, of="a", reason="rogue")
    step.outcome = {"denies": "inference cut", "scope": "agent a"}
    assert "denies nothing" in step.verify().proof


def test_a_gateway_that_is_away_leaves_the_step_pending(gate: Any, drive: Any) -> None:
    step = drive(network_block_destination.ACTION, of="a", host="good.test", reason="rogue")
    gate.kill()
    for call in (step.run, lambda: step.action.plan(step.context, step.params)):
        with pytest.raises(Unreachable):
            call()


def test_the_same_in_memory(there: Any, drive: Any) -> None:
    """The world in memory decides as the gateway does, for tests that have no gateway."""
    for action, params in ONE:
        step = drive(action, of="a", reason="rogue", **params)
        assert step.run().enforcement is Enforcement.FULL, action.id
        there.orders.idle = True
        assert not step.verify().verified
        there.orders.idle = False
        assert step.revert().verified
    assert there.world.policies.decide("support", Attempt(kind="connect", target="x.test:1")).orders == ()


def test_looking_again_tries_nothing_and_leaves_a_lifted_order_to_who_lifted_it(there: Any, drive: Any) -> None:
    for action, params in ONE:
        step = drive(action, of="a", reason="rogue", **params)
        step.run()
        look = partial(action.recheck, step.context, step.params, step.captured, step.outcome)
        tries, there.core.attempt = there.core.attempt, None  # would be an error
        assert look().verified, action.id
        there.orders.idle = True
        assert not look().verified
        there.orders.idle = False
        there.orders.lift(step.captured["order"], reason="a false alarm", by="analyst")
        assert look() is None
        there.core.attempt = tries
