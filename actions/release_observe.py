"""Start the agent anew with every call denied, so that what it tries can be watched before anything is given back.

First stage of a release. The agent runs, under a copy of its known-good policy that allows nothing and in a smaller
share of processors and processes. Refused unless the policy is known-good. Reverting holds the agent again.
"""

from __future__ import annotations

from hashlib import sha256

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import hold_levels, seen
from clawback.actions._stages import (
    NOTHING,
    base_of,
    close,
    decides_by,
    diff_of,
    known_good,
    not_as_started,
    of_use,
    put,
    seen_denied,
    staged,
)
from clawback.errors import NotFound, Refused
from clawback.model import AgentInfo, AgentState, Draft, Enforcement, Level, Narrowing, Phase, PolicyVersion
from clawback.reports.escape import plain

__all__ = ["ACTION", "ObserveParams"]

_HOLD = (Level.FREEZE, Level.ISOLATE)
_MOST_NAMED = 20


class ObserveParams(Params):
    """The agent; `instance` is the one that is to be replaced."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)


def _draft(ctx: Context, base: str, version: int) -> Draft:
    narrowing = Narrowing(keep=NOTHING.keep, drop=NOTHING.drop, share=ctx.world.recovery.share)
    return ctx.world.policies.draft(base, version, narrowing)


def _versions(ctx: Context, policy: str) -> tuple[PolicyVersion, ...]:
    try:
        return ctx.world.policies.versions(policy)
    except NotFound:
        return ()


def _closed(ctx: Context, policy: str) -> bool:
    """Whether nothing is left to take out of it, or it is not there."""
    if not _versions(ctx, policy):
        return True
    return not ctx.world.policies.draft(policy, ctx.world.policies.active(policy).version, NOTHING).changes


def _plan(ctx: Context, params: ObserveParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    base = base_of(info)
    wanted = known_good(ctx, params.agent, base)
    draft = _draft(ctx, base, wanted.version)
    held = f"held at {', '.join(level.word for level in info.hold.levels)}" if info.hold else "not held"
    return Plan(
        changes=(
            f"- {params.agent}: instance {info.instance} under {info.policy} version {info.policy_version}",
            f"+ {params.agent}: a new instance under {staged(base, params.agent)}, which allows nothing",
            *diff_of(draft),
        ),
        checks=(
            held,
            f"made from {base} version {wanted.version}",
            *(f"has no form in this policy: {plain(one, 200)}" for one in draft.left[:_MOST_NAMED]),
        ),
    )


def _capture(ctx: Context, params: ObserveParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    base = base_of(info)
    wanted = known_good(ctx, params.agent, base)
    return {
        "instance": params.instance or info.instance,
        "policy": base,
        "version": wanted.version,
        "sha256": wanted.sha256,
        "staged": staged(base, params.agent),
        "layers": {name: value.value for name, value in info.layers.items()},
    }


def _apply(ctx: Context, params: ObserveParams, captured: Record) -> Record:
    core, policies, name = ctx.world.core, ctx.world.policies, captured["staged"]
    text = policies.read(captured["policy"], captured["version"])
    if sha256(text.encode()).hexdigest() != captured["sha256"]:
        raise Refused(
            f"the text of {captured['policy']} version {captured['version']} is not the one that was recorded"
        )
    draft = _draft(ctx, captured["policy"], captured["version"])
    version = put(ctx, name, draft.text, f"observe-only: {params.reason}")
    info = core.agent(params.agent)
    done = info.instance != captured["instance"] and info.policy == name
    if done and (held := hold_levels(info)):
        # What an earlier look showed stays on the receipt: another would show the hold.
        raise Refused(f"{params.agent} is held at {held[0].word} again", hint="release it once the cause is mended")
    if not done or info.state is AgentState.LOST:
        info = core.relaunch(
            params.agent,
            policy=name,
            policy_version=version.version,
            policy_text=draft.text,
            reason=params.reason,
            by=ctx.actor,
        )
    return {
        "instance": info.instance,
        "policy": name,
        "policy_version": info.policy_version,
        "sha256": version.sha256,
        "changes": [plain(one, 200) for one in draft.changes[:_MOST_NAMED]],
        "left": [plain(one, 200) for one in draft.left[:_MOST_NAMED]],
    }


def _verify(ctx: Context, params: ObserveParams, captured: Record, outcome: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    wrong = not_as_started(ctx, info, captured, outcome, may_fail=True)
    if held := hold_levels(info):
        wrong.append(f"it is held at {held[0].word}")
    if by := decides_by(ctx, outcome["policy"], outcome["sha256"]):
        wrong.append(by)
    denied = 0
    if not wrong and info.state is AgentState.RUNNING:
        known, _ = of_use(ctx, agent=params.agent, policy=captured["policy"])
        harmless = tuple(call for call in known if call.kind == "connect" or call.target.startswith("GET "))
        denied, open_ = seen_denied(ctx, params.agent, harmless)
        wrong += open_
    ended = not denied
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE
        if wrong
        else Enforcement.PARTIAL
        if ended or outcome["left"]
        else Enforcement.FULL,
        proof="; ".join(wrong)
        or f"instance {info.instance} {info.state.value} (was {captured['instance']}) under {info.policy} version "
        f"{info.policy_version}, which allows nothing; "
        + (
            f"it has ended{_status(info)}, as programs may that are denied everything: nothing could be tried"
            if ended
            else f"{denied} calls denied from inside"
        )
        + "".join(f"; {one}" for one in outcome["left"]),
        details={"instance": info.instance, "denied": denied},
    )


def _status(info: AgentInfo) -> str:
    return "" if info.exit_status is None else f" with exit status {info.exit_status}"


def _revert(ctx: Context, params: ObserveParams, captured: Record) -> None:
    """Back behind the bars; the instance from before is gone for good."""
    info = ctx.world.core.agent(params.agent)
    begun = info.instance != captured["instance"] and info.policy == captured["staged"]  # and not let go in full since
    for level in _HOLD if begun else ():  # before the gateway is asked anything: it may be down
        ctx.world.core.contain(
            params.agent,
            level,
            reason=f"release reverted: {params.reason}"[:500],
            by=ctx.actor,
            incident=ctx.incident.id,
        )
    if _versions(ctx, captured["staged"]):
        close(ctx, params.agent, captured["policy"], f"observe-only reverted: {params.reason}")


def _verify_reverted(ctx: Context, params: ObserveParams, captured: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    if info.instance == captured["instance"]:
        return Verification(
            verified=True, enforcement=Enforcement.FULL, proof=f"instance {info.instance} was not replaced"
        )
    if info.policy != captured["staged"]:
        closed = _closed(ctx, captured["staged"])
        return Verification(
            verified=closed,
            enforcement=Enforcement.FULL if closed else Enforcement.NONE,
            proof=f"instance {info.instance} runs under {info.policy}, let go in full since; {captured['staged']} "
            + ("allows nothing" if closed else "still allows something"),
        )
    results = [ctx.world.core.probe(params.agent, level) for level in _HOLD]
    held, closed = hold_levels(info), _closed(ctx, captured["staged"])
    wrong = [f"no hold orders {level.word}" for level in _HOLD if level not in held]
    wrong += [f"{x.level.word}: {x.observed}" for x in results if not seen(x, Enforcement.FULL)]
    wrong += [] if closed else [f"{captured['staged']} still allows something"]
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL,
        proof="; ".join(wrong)
        or f"instance {info.instance} held again: " + "; ".join(f"{x.level.word}: {x.observed}" for x in results),
    )


ACTION = Action(
    id="release.observe-only",
    summary="Start the agent anew with every call denied, to be watched.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.COMPENSABLE,
    needs=frozenset({"core:relaunch", "core:agent", "core:attempt", "core:contain", "policies:read", "policies:put"}),
    scope="one agent: its recorded command starts once, under a policy of its own that allows nothing",
    openc2="start",
    params=ObserveParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
