"""Say what the incident reaches: identities, credentials, destinations, data, time, and who shares them.

Reads the findings, the core's view of all agents and the credentials' identifiers; changes nothing. The assessment is
a stated rule applied to stated facts, for a person to overrule.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.log import redact_text
from clawback.model import AgentInfo, CredentialRef, Enforcement, Incident, Phase, PolicyVersion, Severity

__all__ = ["ACTION", "ScopeParams", "assess", "blast_radius"]

_MOST = 50
_LONGEST = 300
_FRESH_NS = 24 * 3600 * 1_000_000_000


class ScopeParams(Params):
    """The agent, and the instance the findings are about."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def _bounded(values: Any) -> list[str]:
    """Agent-chosen strings as the journal may keep them: each once, cut, without what looks like a secret."""
    return list(dict.fromkeys(redact_text(str(value))[:_LONGEST] for value in values))[:_MOST]


def _destinations(calls: list[tuple[str, str]]) -> list[str]:
    """Whom it spoke to, or tried to: `HOST:PORT`, as in the call."""
    return [
        target.partition("://")[2].partition("/")[0] if kind == "http" else target
        for kind, target in calls
        if kind in {"http", "connect"}
    ]


def _data(calls: list[tuple[str, str]]) -> list[str]:
    """What it asked for by name: files, and what lies behind a URL."""
    return [
        target.partition(" ")[2].partition("?")[0] if kind == "http" else target
        for kind, target in calls
        if kind in {"http", "open"}
    ]


def _credential(ref: CredentialRef) -> dict[str, Any]:
    return {"kind": ref.kind, "name": ref.name, "identifiers": dict(ref.identifiers)}


def _same(one: CredentialRef, other: CredentialRef) -> bool:
    """Whether two agents hold what one revocation would take from both."""
    shared = {
        "vault-token": ("accessor",),
        "vault-lease": ("prefix",),
        "vault-kv": ("mount", "path"),
        "aws-access-key": ("user",),
        "aws-session": ("role",),
    }.get(one.kind)
    if one.kind != other.kind or not shared:
        return False
    return all(one.identifiers.get(x) and one.identifiers[x] == other.identifiers.get(x) for x in shared)


def blast_radius(incident: Incident, info: AgentInfo, everyone: tuple[AgentInfo, ...]) -> dict[str, Any]:
    """What the agent could reach, whether or not it did: an upper estimate, and the rule behind its level."""
    reached = [(kind, target) for finding in incident.findings for kind, target in finding.attempts]
    sharing = [
        other.agent
        for other in everyone
        if other.agent != info.agent and any(_same(a, b) for a in info.credentials for b in other.credentials)
    ]
    same_policy = [x.agent for x in everyone if x.agent != info.agent and x.policy == info.policy]
    if sharing or len(info.credentials) > 3:
        level, why = "high", "credentials are shared with other agents, or there are many"
    elif info.credentials:
        level, why = "medium", "it held credentials that work outside its sandbox"
    else:
        level, why = "low", "it held no credentials"
    return {
        "level": level,
        "why": why,
        "agents_sharing_credentials": _bounded(sharing),
        "agents_under_the_same_policy": _bounded(same_policy),
        "credentials": len(info.credentials),
        "destinations": len(set(_destinations(reached))),
        "data_sets": len(set(_data(reached))),
    }


def assess(incident: Incident, versions: tuple[PolicyVersion, ...]) -> dict[str, Any]:
    """Threat, misconfiguration or undetermined, with the reasons. A tie is never resolved towards harmless."""
    findings = incident.findings
    if not findings:
        return {"verdict": "undetermined", "reasons": ["no finding is on record"]}
    techniques = {finding.technique for finding in findings}
    worst = max(finding.severity for finding in findings)
    first = min(finding.time_ns for finding in findings)
    current = max((finding.policy_version for finding in findings), default=0)
    used = next((x for x in versions if x.version == current), None)
    threat = []
    if len(techniques) > 1:
        threat.append(f"{len(techniques)} different techniques in one incident")
    if worst >= Severity.CRITICAL:
        threat.append(f"a finding of severity {worst.name.lower()}")
    if any(finding.detector.startswith(("secrets.", "exfiltration.")) for finding in findings):
        threat.append("it reached for secrets or sent data to where it never had")
    mistake = []
    if used is not None and not used.known_good and 0 <= first - used.created_ns < _FRESH_NS:
        mistake.append(f"policy version {used.version} was changed less than a day before and is not known-good")
    if all(finding.detector.startswith("sandbox.down") for finding in findings):
        mistake.append("the only finding is that the sandbox is gone")
    if threat:
        return {"verdict": "threat", "reasons": threat + [f"also: {reason}" for reason in mistake]}
    if mistake:
        return {"verdict": "misconfiguration", "reasons": mistake}
    return {"verdict": "undetermined", "reasons": ["one technique, no secrets, no recent change of policy"]}


def _plan(ctx: Context, params: ScopeParams) -> Plan:
    return Plan(changes=(), checks=(f"{len(ctx.incident.findings)} findings on {params.agent} are on record",))


def _capture(ctx: Context, params: ScopeParams) -> Record:
    info = ctx.world.core.agent(params.agent)
    return {"instance": info.instance}


def _apply(ctx: Context, params: ScopeParams, _captured: Record) -> Record:
    world, incident = ctx.world, ctx.incident
    info = world.core.agent(params.agent)
    refs = world.secrets.refs(params.agent) or info.credentials
    times = [finding.time_ns for finding in incident.findings]
    calls = [(kind, target) for finding in incident.findings for kind, target in finding.attempts]
    return {
        "agent": {"id": info.agent, "tenant": info.tenant, "team": info.team, "tags": list(info.tags)},
        "instance": info.instance,
        "process": {"pid": info.pid, "state": info.state.value, "started_ns": info.started_ns},
        "instructions": redact_text(" ".join(info.command))[:2000],
        "policy": {"name": info.policy, "version": info.policy_version},
        "layers": {name: value.value for name, value in info.layers.items()},
        "credentials": [_credential(ref) for ref in refs],
        "tool_calls": _bounded(f"{kind} {target}" for kind, target in calls),
        "destinations": _bounded(_destinations(calls)),
        "data": _bounded(_data(calls)),
        "window": {"first_ns": min(times, default=0), "last_ns": max(times, default=0)},
        "assessment": assess(incident, world.policies.versions(info.policy)),
        "blast_radius": blast_radius(incident, info, world.core.agents()),
    }


def _verify(ctx: Context, params: ScopeParams, _captured: Record, outcome: Record) -> Verification:
    """The record is about this agent, this instance and every finding known when it was made."""
    info = ctx.world.core.agent(params.agent)
    radius, verdict = outcome["blast_radius"], outcome["assessment"]["verdict"]
    meant = params.instance or info.instance
    verified = outcome["agent"]["id"] == params.agent and outcome["instance"] == meant
    return Verification(
        verified=verified,
        enforcement=Enforcement.FULL if verified else Enforcement.PARTIAL,
        proof=f"{verdict}; blast radius {radius['level']} ({radius['why']}); "
        f"{len(outcome['credentials'])} credentials, {len(outcome['destinations'])} destinations, "
        f"{len(outcome['data'])} data sets"
        + ("" if verified else f"; read of instance {outcome['instance']}, meant was {meant}"),
    )


ACTION = Action(
    id="incident.scope",
    summary="Record what the incident reaches and whether it looks like a threat or a mistake.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:agent", "core:agents", "policies:versions", "secrets:refs"}),
    scope="reads only",
    openc2="investigate",
    params=ScopeParams,
    key=lambda params: f"{params.agent}:{params.instance}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
