"""Start an agent anew, under the known-good policy that stands and with the credentials that the store holds now.

Refused unless the active policy text is one that was marked known-good. What the old process tree had in memory is
gone for good; the action therefore has no revert: contain the new instance instead.
"""

from __future__ import annotations

from hashlib import sha256

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.errors import Refused
from clawback.model import AgentInfo, AgentState, Enforcement, Phase, PolicyVersion

__all__ = ["ACTION", "RelaunchParams"]

_RANK = {Enforcement.NONE: 0, Enforcement.PARTIAL: 1, Enforcement.FULL: 2}


class RelaunchParams(Params):
    """The agent; `instance` is the one that is to be replaced."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    reason: str = Field(min_length=1, max_length=500)


def _known_good(ctx: Context, info: AgentInfo) -> PolicyVersion:
    active = ctx.world.policies.active(info.policy)
    if not any(x.known_good and x.sha256 == active.sha256 for x in ctx.world.policies.versions(info.policy)):
        raise Refused(
            f"{info.agent} is not relaunched: version {active.version} of policy {info.policy} is not known to be good",
            hint="run policy.restore first, or mark the version after reviewing it",
        )
    return active


def _plan(ctx: Context, params: RelaunchParams) -> Plan:
    info = ctx.world.core.agent(params.agent)
    wanted = _known_good(ctx, info)
    held = f"held at {', '.join(level.word for level in info.hold.levels)}" if info.hold else "not held"
    return Plan(
        changes=(
            f"- {params.agent}: instance {info.instance} under {info.policy} version {info.policy_version}",
            f"+ {params.agent}: a new instance under {info.policy} version {wanted.version}",
        ),
        checks=(held,),
    )


def _capture(ctx: Context, params: RelaunchParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    wanted = _known_good(ctx, info)
    return {
        "instance": params.instance or info.instance,
        "policy": info.policy,
        "version": wanted.version,
        "sha256": wanted.sha256,
        "layers": {name: value.value for name, value in info.layers.items()},
    }


def _apply(ctx: Context, params: RelaunchParams, captured: Record) -> Record:
    core, policy, version = ctx.world.core, captured["policy"], captured["version"]
    info = core.agent(params.agent)
    done = info.instance != captured["instance"] and info.policy_version == version
    if not done or info.state is AgentState.LOST:
        text = ctx.world.policies.read(policy, version)
        if sha256(text.encode()).hexdigest() != captured["sha256"]:
            raise Refused(f"the text of {policy} version {version} is not the one that was recorded")
        info = core.relaunch(params.agent, policy_version=version, policy_text=text, reason=params.reason, by=ctx.actor)
    return {"instance": info.instance, "pid": info.pid, "policy": info.policy, "policy_version": info.policy_version}


def _verify(ctx: Context, params: RelaunchParams, captured: Record, outcome: Record) -> Verification:
    info = ctx.world.core.agent(params.agent)
    stored = {(ref.kind, ref.name): ref.identifiers for ref in ctx.world.secrets.refs(params.agent)}
    wrong: list[str] = []
    if info.instance == captured["instance"] or info.instance != outcome["instance"]:
        wrong.append(f"instance {info.instance} is there, which is not the one that was started")
    if info.state is not AgentState.RUNNING and info.exit_status != 0:
        wrong.append(f"it is {info.state.value}, exit status {info.exit_status}")
    if info.policy_version != captured["version"]:
        wrong.append(f"it runs under policy version {info.policy_version}, not {captured['version']}")
    for name, before in captured["layers"].items():
        now = info.layers.get(name, Enforcement.NONE)
        if _RANK[now] < _RANK[Enforcement(before)]:
            wrong.append(f"layer {name} is {now.value}, was {before}")
    wrong.extend(
        f"credential {ref.name} is not the one in the store"
        for ref in info.credentials
        if stored.get((ref.kind, ref.name), ref.identifiers) != ref.identifiers
    )
    least = min((_RANK[value] for value in info.layers.values()), default=0)
    proof = (
        f"instance {info.instance} {info.state.value} (was {captured['instance']}), policy {info.policy} version "
        f"{info.policy_version}, {len(info.layers)} layers not weaker than before, {len(info.credentials)} credentials "
        "as stored"
    )
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.FULL if least == _RANK[Enforcement.FULL] else Enforcement.PARTIAL,
        proof="; ".join(wrong) or proof,
        details={"instance": info.instance, "layers": {name: value.value for name, value in info.layers.items()}},
    )


ACTION = Action(
    id="agent.relaunch",
    summary="Start the agent anew under the known-good policy, with the credentials in the store.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"core:relaunch", "core:agent", "policies:read", "secrets:refs"}),
    scope="one agent: what is left of its processes ends, its recorded command starts once",
    openc2="start",
    params=RelaunchParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
