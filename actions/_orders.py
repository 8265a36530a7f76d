"""Orders over the agents' way out as actions: one shape, and a file for each that says what it denies.

Verifying reads back that the order stands, asks the gateway what it says to each agent that is meant, and has each that
runs unheld try it from inside its own sandbox: what is seen there must name this order. Of an agent that is held or
gone the gateway's own decision is all there is, and the receipt says `partial`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import Field, model_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._order_probes import probes
from clawback.actions._order_sight import Sight, covered, look, subject_of, undecided
from clawback.model import AgentInfo, AgentState, EgressOrder, Enforcement, OrderKind, Phase, Scope, ScopeKind, Subject

__all__ = ["ScopedParams", "order_action"]

_SHOWN = 20
_ODD = re.compile(r"[^A-Za-z0-9._-]")


class ScopedParams(Params):
    """Whom an order is for.

    scope   agent, tenant, team, tag or all
    of      the agent's id, the tenant's or team's name, the tag as K=V; empty for all
    again   a number that tells a later order of the same from the first, within one incident
    """

    scope: ScopeKind = ScopeKind.AGENT
    of: str = Field("", max_length=200)
    reason: str = Field(min_length=1, max_length=500)
    again: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _said(self) -> ScopedParams:
        if (self.scope is ScopeKind.ALL) == bool(self.of):
            raise ValueError("of: which one is not said" if not self.of else "of: all agents are meant already")
        return self


P = TypeVar("P", bound=ScopedParams)


def order_action(
    *,
    id: str,  # noqa: A002 - as the declaration calls it
    kind: OrderKind,
    summary: str,
    scope: str,
    params: type[P],
    denies: Callable[[P], dict[str, Any]],
    d3fend: str = "",
) -> Action[P]:
    """`denies` gives the order's own fields (see `EgressOrder`)."""
    action_id = id

    def key(params: P) -> str:
        said = ":".join(str(value) for value in denies(params).values())
        return f"{params.scope}:{params.of}:{said}" + (f":{params.again}" if params.again else "")

    def order(ctx: Context, params: P) -> EgressOrder:
        """By its id this step's own, in every process that makes it or undoes it."""
        digest = hashlib.sha256(f"{action_id}:{key(params)}".encode()).hexdigest()[:12]
        return EgressOrder(
            id=f"{_ODD.sub('-', ctx.incident.id)[:100]}.{digest}",
            kind=kind,
            scope=Scope(params.scope, params.of),
            reason=params.reason,
            by=ctx.actor[:200],
            incident=ctx.incident.id,
            **denies(params),
        )

    def plan(ctx: Context, params: P) -> Plan:
        wanted, orders = order(ctx, params), ctx.world.orders
        hit = covered(ctx, wanted.scope)
        stands = any(one.id == wanted.id for one in orders.orders())
        tries = probes(wanted, orders.inference())
        checks = [
            f"agents hit: {len(hit)}" + (": " if hit else "") + ", ".join(_shown(info) for info in hit[:_SHOWN])
            + (f" and {len(hit) - _SHOWN} more" if len(hit) > _SHOWN else "")
        ]  # fmt: skip
        for info in hit[:_SHOWN]:
            for probe in tries:
                said = orders.decide(info.policy or "none", probe.attempt, subject=subject_of(info))
                word = "allowed" if said.allowed else f"denied by {said.rule or 'default'}"
                checks.append(f"{info.agent}: {probe.attempt.kind} {probe.attempt.target[:120]}: {word} at present")
        if not tries:
            checks.append("no inference endpoint of this kind is declared: the gateway will refuse the order")
        if stands:
            return Plan(changes=(), checks=(f"{wanted.rule} stands already", *checks))
        return Plan(
            changes=(
                f"- {wanted.scope}: {wanted.what} as the policy says",
                f"+ {wanted.scope}: {wanted.what}, by {wanted.rule} until it is lifted, open connections reset",
            ),
            checks=tuple(checks),
        )

    def capture(ctx: Context, params: P) -> Record:
        wanted = order(ctx, params)
        return {
            "order": wanted.id,
            "stood": any(one.id == wanted.id for one in ctx.world.orders.orders()),
            "agents_hit": len(hit := covered(ctx, wanted.scope)),
            "agents": [info.agent for info in hit[:_SHOWN]],
        }

    def apply(ctx: Context, params: P, _captured: Record) -> Record:
        standing, ended = ctx.world.orders.place(order(ctx, params))
        return {
            "order": standing.id,
            "denies": standing.what,
            "scope": str(standing.scope),
            "placed_ns": standing.placed_ns,
            "connections_reset": ended,
        }

    def verify(ctx: Context, params: P, _captured: Record, outcome: Record) -> Verification:
        wanted = order(ctx, params)
        standing = next((one for one in ctx.world.orders.orders() if one.id == wanted.id), None)
        if standing is None:
            return _not(f"{wanted.rule} does not stand")
        if (standing.kind, standing.what, str(standing.scope)) != (kind, outcome["denies"], outcome["scope"]):
            return _not(f"{wanted.rule} stands and says otherwise: {standing.what}, for {standing.scope}")
        tries = probes(standing, ctx.world.orders.inference())
        if not tries:
            return _not(f"{wanted.rule} stands over no declared inference endpoint: it denies nothing")
        return _claim(standing, look(ctx, standing, tries), outcome)

    def revert(ctx: Context, params: P, captured: Record) -> None:
        reason = f"revert of {ctx.incident.id}: {params.reason}"[:500]
        ctx.world.orders.lift(captured["order"], reason=reason, by=ctx.actor[:200])

    def verify_reverted(ctx: Context, params: P, captured: Record) -> Verification:
        orders, mine = ctx.world.orders, captured["order"]
        if any(one.id == mine for one in orders.orders()):
            return Verification(verified=False, enforcement=Enforcement.FULL, proof=f"order:{mine} still stands")
        wanted = order(ctx, params)
        asked = [(info.policy, subject_of(info)) for info in covered(ctx, wanted.scope)[:_SHOWN]]
        others: dict[str, None] = {}
        for policy, subject in asked or [("none", Subject(agent=params.of))]:
            for probe in probes(wanted, orders.inference()):
                others |= dict.fromkeys(orders.decide(policy or "none", probe.attempt, subject=subject).orders)
        if mine in others:
            return Verification(verified=False, enforcement=Enforcement.FULL, proof=f"order:{mine} still decides")
        proof = f"order:{mine} is lifted, and decides for none of {len(asked)} agents that it was for"
        if others:
            proof += f"; other orders deny the same: {', '.join(others)}"[:500]
        return Verification(verified=True, enforcement=Enforcement.NONE, proof=proof)

    return Action(
        id=action_id,
        summary=summary,
        phase=Phase.CONTAIN,
        reversibility=Reversibility.REVERSIBLE,
        needs=frozenset({"core:agents", "core:attempt", "gateway:decide", "gateway:lift", "gateway:place"}),
        scope=scope,
        openc2="deny",
        d3fend=d3fend,
        consent=False,
        params=params,
        key=key,
        plan=plan,
        capture=capture,
        apply=apply,
        verify=verify,
        recheck=lambda ctx, params, _captured, _outcome: _again(ctx, order(ctx, params)),
        revert=revert,
        verify_reverted=verify_reverted,
    )


def _shown(info: AgentInfo) -> str:
    held = "+".join(level.word for level in info.hold.levels) if info.hold else ""
    state = info.state.value if info.state is not AgentState.RUNNING else f"held at {held}" if held else "running"
    return f"{info.agent} ({state})"


def _not(proof: str) -> Verification:
    return Verification(verified=False, enforcement=Enforcement.NONE, proof=proof)


def _again(ctx: Context, wanted: EgressOrder) -> Verification | None:
    """By what the gateway says alone: each try from inside would be one more denied call in the telemetry."""
    if all(one.id != wanted.id for one in ctx.world.orders.orders()):
        return None  # lifted, by the response or by somebody who may
    tries = probes(wanted, ctx.world.orders.inference())
    if not tries:
        return _not(f"{wanted.rule} stands over no declared inference endpoint: it denies nothing")
    if against := undecided(ctx, wanted, tries):
        return _not(f"{wanted.rule} stands, and does not decide: {'; '.join(against[:_SHOWN])}")
    proof = f"{wanted.what}: {wanted.rule} stands for {wanted.scope} and decides"
    return Verification(verified=True, enforcement=Enforcement.FULL, proof=proof)


def _claim(order: EgressOrder, sight: Sight, outcome: Record) -> Verification:
    seen, told, against = sight.seen, sight.told, sight.against
    parts = [f"{order.what}: {order.rule} stands for {order.scope}"]
    parts += [f"NOT denied: {one}" for one in against[:_SHOWN]]
    if seen:
        parts.append(f"denied from inside {len(seen)} of {len(seen) + len(told) + len(against)} agents: {seen[0]}")
    if told:
        few = "; ".join(told[:_SHOWN])
        parts.append(f"by the gateway's own decision alone, {len(told)}: {few}")
    verified = not against and bool(seen or told)
    full = verified and not told
    return Verification(
        verified=verified,
        enforcement=Enforcement.FULL if full else Enforcement.PARTIAL if seen or verified else Enforcement.NONE,
        proof="; ".join(parts),
        details={
            "order": order.id,
            "seen_from_inside": len(seen),
            "by_decision": len(told),
            "not_denied": len(against),
            "connections_reset": outcome.get("connections_reset", 0),
        },
    )
