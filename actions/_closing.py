"""Closing one traced credential: one shape, two actions, for what can be given back and for what cannot."""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._issuers import Kind, kinds
from clawback.actions._records import Records
from clawback.actions._tracing import found_before
from clawback.errors import InvalidInput, NotFound
from clawback.model import CredentialNode, Enforcement, Life, Phase

__all__ = ["CloseParams", "closing_action"]


class CloseParams(Params):
    """One node of the incident's trace, by its kind and id; `turn` is the walk that found it alive."""

    agent: str = Field(min_length=1, max_length=128)
    kind: str = Field(min_length=1, max_length=64)
    id: str = Field(min_length=1, max_length=2048)
    turn: int = Field(1, ge=1, le=99)


def _node(ctx: Context, params: CloseParams, *, reversible: bool) -> tuple[CredentialNode, Kind]:
    kind = kinds().get(params.kind)
    if kind is None or kind.reversible is not reversible:
        known = ", ".join(name for name, one in kinds().items() if one.reversible is reversible)
        raise InvalidInput(f"{params.kind[:64]!a} is closed otherwise, or not here", hint=f"this closes: {known}")
    node = found_before(ctx, params.agent).get(f"{params.kind}/{params.id}")
    if node is None:
        raise NotFound(f"no trace of this incident has {params.kind} {params.id}", hint="run credential.trace first")
    return node, kind


def closing_action(
    action_id: str, *, summary: str, scope: str, needs: frozenset[str], reversible: bool
) -> Action[CloseParams]:
    """`credential.refuse`, or `credential.revoke`."""

    def plan(ctx: Context, params: CloseParams) -> Plan:
        node, kind = _node(ctx, params, reversible=reversible)
        seen = kind.life(Records(ctx), node)
        came = [f"from {parent}" for parent in node.parents]
        return Plan(
            changes=kind.would(node) if seen.life is not Life.GONE else (),
            checks=(f"{node.key}: {seen.life.value}: {seen.how}", node.said, *came[:10]),
        )

    def capture(ctx: Context, params: CloseParams) -> Record:
        node, kind = _node(ctx, params, reversible=reversible)
        records = Records(ctx)
        return {"before": kind.life(records, node).life.value, **kind.capture(records, node, params.turn)}

    def apply(ctx: Context, params: CloseParams, captured: Record) -> Record:
        node, kind = _node(ctx, params, reversible=reversible)
        return kind.close(Records(ctx), node, captured)

    def verify(ctx: Context, params: CloseParams, captured: Record, outcome: Record) -> Verification:
        node, kind = _node(ctx, params, reversible=reversible)
        seen = kind.life(Records(ctx), node)
        closed = seen.life in (Life.REFUSED, Life.GONE)
        canary = outcome.get("canary")
        if canary and not canary["refused"]:
            closed = False
            seen_how = f"a session from just before was used just after: ACCEPTED ({canary['answer']})"
        else:
            seen_how = seen.how
        # By the issuer's record alone it is closed; that it is refused, only using it shows.
        used = Enforcement.FULL if seen.life is Life.REFUSED else Enforcement.PARTIAL
        return Verification(
            verified=closed,
            enforcement=used if closed else Enforcement.NONE,
            proof=f"{node.key}: {'closed' if closed else 'NOT CLOSED'}: {seen_how}; it was {captured['before']} before",
        )

    def revert(ctx: Context, params: CloseParams, captured: Record) -> None:
        node, kind = _node(ctx, params, reversible=reversible)
        if kind.reopen is not None:
            kind.reopen(Records(ctx), node, captured)

    def verify_reverted(ctx: Context, params: CloseParams, captured: Record) -> Verification:
        node, kind = _node(ctx, params, reversible=reversible)
        seen = kind.life(Records(ctx), node)
        as_before = (seen.life is Life.ALIVE) is (captured["before"] == Life.ALIVE.value)
        return Verification(
            verified=as_before,
            enforcement=Enforcement.FULL if as_before else Enforcement.NONE,
            proof=f"{node.key}: {seen.life.value}, {captured['before']} before it was closed: {seen.how}",
        )

    return Action(
        id=action_id,
        summary=summary,
        phase=Phase.ERADICATE,
        reversibility=Reversibility.REVERSIBLE if reversible else Reversibility.IRREVERSIBLE,
        needs=needs,
        scope=scope,
        openc2="deny",
        d3fend="D3-CR",
        params=CloseParams,
        key=lambda params: f"{params.agent}:{params.turn}:{params.kind}/{params.id}",
        plan=plan,
        capture=capture,
        apply=apply,
        verify=verify,
        recheck=verify,  # it reads, and tries what is closed
        revert=revert if reversible else None,
        verify_reverted=verify_reverted if reversible else None,
    )
