"""Say what the incident reaches: agents, identities, credentials, tools, destinations, data, time, and who shares them.

Reads the findings, the telemetry, the core's view of all agents, the credentials' identifiers and what their issuers
say of whose they are; changes nothing, and says of each where it was read. The assessment is a stated rule applied to
stated facts, for a person to overrule.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._identities import identities
from clawback.actions._radius import blast_radius
from clawback.actions._reached import bounded, reached, window
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._related import MOST_RELATED, Related, related
from clawback.log import redact_text
from clawback.model import CredentialRef, Enforcement, Incident, Phase, PolicyVersion, Severity

__all__ = ["ACTION", "ScopeParams", "assess", "blast_radius"]

_FRESH_NS = 24 * 3600 * 1_000_000_000


class ScopeParams(Params):
    """The agent, and the instance the findings are about."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)


def _credential(ref: CredentialRef) -> dict[str, Any]:
    return {"kind": ref.kind, "name": ref.name, "identifiers": dict(ref.identifiers)}


def _other(one: Related) -> dict[str, Any]:
    return {
        "id": one.info.agent,
        "instance": one.info.instance,
        "why": bounded(one.why),
        "credentials": [_credential(ref) for ref in one.credentials],
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
    info, everyone = world.core.agent(params.agent), world.core.agents()
    refs = world.secrets.refs(params.agent) or info.credentials
    what = reached(ctx, params.agent, params.instance or info.instance)
    others = related(replace(info, credentials=refs), everyone)
    return {
        "agent": {"id": info.agent, "tenant": info.tenant, "team": info.team, "tags": list(info.tags)},
        "instance": info.instance,
        "process": {"pid": info.pid, "state": info.state.value, "started_ns": info.started_ns},
        "works_for": info.parent,
        "related": [_other(one) for one in others[:MOST_RELATED]],
        "instructions": redact_text(" ".join(info.command))[:2000],
        "policy": {"name": info.policy, "version": info.policy_version},
        "layers": {name: value.value for name, value in info.layers.items()},
        "credentials": [_credential(ref) for ref in refs],
        "identities": identities(ctx, refs),
        **what,
        "sources": {**what["sources"], "agents": "the core", "credentials": "the secret store, or the core"},
        "window": window(ctx),
        "assessment": assess(incident, world.policies.versions(info.policy)),
        "blast_radius": blast_radius(incident, replace(info, credentials=refs), everyone, what),
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
        f"{len(outcome['data'])} data sets, {len(outcome['tools'])} tools, {len(outcome['identities'])} identities; "
        f"in scope with it: {', '.join(one['id'] for one in outcome['related']) or 'no other agent'}"
        + ("" if verified else f"; read of instance {outcome['instance']}, meant was {meant}"),
    )


ACTION = Action(
    id="incident.scope",
    summary="Record what the incident reaches and whether it looks like a threat or a mistake.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {
            "core:agent",
            "core:agents",
            "policies:versions",
            "secrets:refs",
            "telemetry:events",
            "vault:auth/token/lookup-accessor",
        }
    ),
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
