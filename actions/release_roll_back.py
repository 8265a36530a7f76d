"""Take a release back: the agent misbehaved again. No copy of its policy allows anything, and it is held.

The known-good version decides under the policy's own name, whatever was put there meanwhile. The agent is frozen and
isolated; it is stopped by `agent.stop`, once there is evidence of this instance too. Nothing reverts this but a new
release.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import gone, hold_levels, seen
from clawback.actions._stages import base_of, close, decides_by, still_allowed
from clawback.errors import NotFound
from clawback.model import Enforcement, Level, Phase, staged_name
from clawback.reports.escape import plain

__all__ = ["ACTION", "RollBackParams"]

_HOLD = (Level.FREEZE, Level.ISOLATE)


class RollBackParams(Params):
    """The agent, and the instance that misbehaved; empty: whichever is there."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)


def _good(ctx: Context, policy: str) -> tuple[int, str]:
    """The newest version that is marked known-good, and its hash; 0 where none is."""
    good = [x for x in ctx.world.policies.versions(policy) if x.known_good]
    newest = max(good, key=lambda x: x.version, default=None)
    return (newest.version, newest.sha256) if newest else (0, "")


def _plan(ctx: Context, params: RollBackParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    base = base_of(info)
    version, _ = _good(ctx, base)
    return Plan(
        changes=(
            f"- {params.agent}: instance {info.instance} under {info.policy}",
            f"+ {params.agent}: held; {staged_name(base, params.agent)} allows nothing",
        ),
        checks=(f"{base} returns to version {version}" if version else f"{base} has no version that is known-good",),
    )


def _capture(ctx: Context, params: RollBackParams) -> Record:
    """Of the core alone: an agent is held though the gateway may be down."""
    info = ctx.world.core.agent(params.agent)
    return {"instance": info.instance, "policy": base_of(info)}


def _apply(ctx: Context, params: RollBackParams, captured: Record) -> Record:
    reason = f"rolled back: {params.reason}"[:500]
    for level in _HOLD:  # before anything that may take long
        ctx.world.core.contain(params.agent, level, reason=reason, by=ctx.actor, incident=ctx.incident.id)
    name = staged_name(captured["policy"], params.agent)
    try:
        closed = close(ctx, params.agent, captured["policy"], reason)
        copy = {"closed": closed.version, "closed_sha256": closed.sha256}
    except NotFound:
        copy = {"closed": 0, "closed_sha256": ""}
    version, digest = _good(ctx, captured["policy"])
    if version:
        ctx.world.policies.restore(
            captured["policy"], version, author=ctx.actor, reason=reason, incident=ctx.incident.id
        )
    return {"staged": name, **copy, "version": version, "sha256": digest}


def _verify(ctx: Context, params: RollBackParams, captured: Record, outcome: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    wrong: list[str] = []
    held = hold_levels(info)
    wrong += [f"no hold orders {level.word}" for level in _HOLD if level not in held]
    if gone(ctx, info):
        state = "its processes are gone"
    else:
        results = [ctx.world.core.probe(params.agent, level) for level in _HOLD]
        wrong += [f"{x.level.word}: {x.observed}" for x in results if not seen(x, Enforcement.FULL)]
        state = "; ".join(f"{x.level.word}: {x.observed}" for x in results)
    if outcome["closed"]:
        if by := decides_by(ctx, outcome["staged"], outcome["closed_sha256"]):
            wrong.append(by)
        if open_ := still_allowed(ctx, outcome["staged"], params.agent, captured["policy"]):
            wrong.append(f"{outcome['staged']} allows {open_[0].kind} {plain(open_[0].target, 120)}")
    if outcome["version"] and (by := decides_by(ctx, captured["policy"], outcome["sha256"])):
        wrong.append(by)
    copy = (
        f"{outcome['staged']} version {outcome['closed']} allows nothing" if outcome["closed"] else "no stage was open"
    )
    base = (
        f"{captured['policy']} is version {outcome['version']} again" if outcome["version"] else "no known-good policy"
    )
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL if outcome["version"] else Enforcement.PARTIAL,
        proof="; ".join(wrong) or f"{copy}; {base}; instance {info.instance} held, {state}",
    )


def _recheck(ctx: Context, params: RollBackParams, captured: Record, _outcome: Record) -> Verification | None:
    """Whether the hold holds; a policy that is put later is its author's business."""
    info = ctx.world.core.agent(params.agent)
    held = [level for level in _HOLD if level in hold_levels(info)]
    if info.instance != captured["instance"] or not held or gone(ctx, info):
        return None  # replaced, let go by somebody who may, or ended
    results = [ctx.world.core.probe(params.agent, level) for level in held]
    holds = all(seen(result, Enforcement.FULL) for result in results)
    return Verification(
        verified=holds,
        enforcement=Enforcement.FULL if holds else Enforcement.NONE,
        proof="; ".join(f"{x.level.word}: {x.observed or 'nothing observed'}" for x in results),
    )


ACTION = Action(
    id="release.roll-back",
    summary="Take the release back: hold the agent, and close what its stages allowed.",
    phase=Phase.CONTAIN,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset(
        {
            *("core:freeze", "core:isolate", "core:probe"),
            *("policies:put", "policies:restore", "policies:draft", "policies:decide"),
        }
    ),
    scope="one agent and its own copy of its policy; the policy itself returns to its known-good version",
    openc2="contain",
    params=RollBackParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
)
