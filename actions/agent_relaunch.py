"""Start an agent anew, under the known-good policy that stands and with the credentials that the store holds now.

Refused unless the active policy text is one that was marked known-good. An agent whose release is staged returns to the
policy that its stages were made from, which ends them: its own copy of that policy allows nothing any more. What the
old process tree had in memory is gone for good; the action therefore has no revert: contain the new instance instead.
"""

from __future__ import annotations

from hashlib import sha256

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._stages import base_of, close, decides_by, known_good, layers_before, not_as_started
from clawback.errors import Refused
from clawback.model import AgentInfo, AgentState, Enforcement, Phase

__all__ = ["ACTION", "RelaunchParams"]


class RelaunchParams(Params):
    """The agent; `instance` is the one that is to be replaced."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)


def _plan(ctx: Context, params: RelaunchParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    policy = base_of(info)
    wanted = known_good(ctx, params.agent, policy)
    held = f"held at {', '.join(level.word for level in info.hold.levels)}" if info.hold else "not held"
    return Plan(
        changes=(
            f"- {params.agent}: instance {info.instance} under {info.policy} version {info.policy_version}",
            f"+ {params.agent}: a new instance under {policy} version {wanted.version}",
        ),
        checks=(held, *((f"{info.policy} allows nothing from then on",) if info.policy != policy else ())),
    )


def _capture(ctx: Context, params: RelaunchParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    policy = base_of(info)
    wanted = known_good(ctx, params.agent, policy)
    return {
        "instance": params.instance or info.instance,
        "policy": policy,
        "version": wanted.version,
        "sha256": wanted.sha256,
        "layers": layers_before(ctx, info),
        "staged": info.policy if info.policy != policy else "",
    }


def _apply(ctx: Context, params: RelaunchParams, captured: Record) -> Record:
    core, policy, version = ctx.world.core, captured["policy"], captured["version"]
    info = core.agent(params.agent)
    done = info.instance != captured["instance"] and (info.policy, info.policy_version) == (policy, version)
    if not done or _failed(info):
        text = ctx.world.policies.read(policy, version)
        if sha256(text.encode()).hexdigest() != captured["sha256"]:
            raise Refused(f"the text of {policy} version {version} is not the one that was recorded")
        info = core.relaunch(
            params.agent,
            policy=policy,
            policy_version=version,
            policy_text=text,
            reason=params.reason,
            by=ctx.actor,
        )
    outcome = {"instance": info.instance, "pid": info.pid, "policy": info.policy, "policy_version": info.policy_version}
    if not captured["staged"]:
        return outcome
    # Only after the start: until then the copy is what holds the agent back.
    closed = close(ctx, params.agent, policy, f"let go in full: {params.reason}"[:500])
    return {**outcome, "closed": closed.version, "closed_sha256": closed.sha256}


def _failed(info: AgentInfo) -> bool:
    """It is gone, and not because it had done its work."""
    return info.state is AgentState.LOST or (info.state is AgentState.EXITED and info.exit_status != 0)


def _verify(ctx: Context, params: RelaunchParams, captured: Record, outcome: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    wrong = not_as_started(ctx, info, captured, outcome)
    if captured["staged"] and (by := decides_by(ctx, captured["staged"], outcome["closed_sha256"])):
        wrong.append(by)
    proof = (
        f"instance {info.instance} {info.state.value} (was {captured['instance']}), policy {info.policy} version "
        f"{info.policy_version}, {len(info.layers)} layers not weaker than before, {len(info.credentials)} credentials "
        "as stored" + (f"; {captured['staged']} allows nothing" if captured["staged"] else "")
    )
    whole = all(value is Enforcement.FULL for value in info.layers.values())
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.FULL if whole and info.layers else Enforcement.PARTIAL,
        proof="; ".join(wrong) or proof,
        details={"instance": info.instance, "layers": {name: value.value for name, value in info.layers.items()}},
    )


ACTION = Action(
    id="agent.relaunch",
    summary="Start the agent anew under the known-good policy, with the credentials in the store.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"core:relaunch", "core:agent", "policies:read", "policies:put", "secrets:refs"}),
    scope="one agent: what is left of its processes ends, its recorded command starts once",
    openc2="start",
    params=RelaunchParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
