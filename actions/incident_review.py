"""Review the incident: how fast it went, what may have caused it, and what to change so that it does not recur.

Causes are candidates with the fact each rests on, for the post-incident meeting to confirm or strike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.errors import NotFound
from clawback.model import Enforcement, Incident, Phase, PolicyVersion, ReceiptState
from clawback.reports.escape import plain
from clawback.reports.times import times_ms

__all__ = ["ACTION", "ReviewParams", "root_causes", "suggestions"]

_LONGEST_DIFF = 8000
_REPLACED = frozenset({"vault-token", "vault-lease", "aws-access-key", "aws-session"})


class ReviewParams(Params):
    """The policy that the agent ran under. `revision` grows as the record does: each is a step of its own."""

    policy: str = Field(min_length=1, max_length=128)
    revision: int = Field(0, ge=0)


def _suspect(incident: Incident, versions: tuple[PolicyVersion, ...]) -> PolicyVersion | None:
    """The policy version the rogue calls were made under, if nobody had marked it known-good."""
    used = {x.policy_version for x in incident.findings}
    return next((x for x in reversed(versions) if x.version in used and not x.known_good), None)


def root_causes(incident: Incident, versions: tuple[PolicyVersion, ...]) -> list[dict[str, str]]:
    """Candidates as `{category, because}`, the strongest first; `unknown` where no rule speaks."""
    detectors = {finding.detector for finding in incident.findings}
    causes: list[dict[str, str]] = []
    if suspect := _suspect(incident, versions):
        causes.append(
            {
                "category": "policy too wide",
                "because": f"the calls were made under version {suspect.version} by {plain(suspect.author, 80)}, "
                "which was not marked known-good",
            }
        )
    asi = {name for finding in incident.findings for name in finding.asi}
    if "ASI01" in asi or (len(detectors) > 1 and any(x.startswith(("exfiltration.", "secrets.")) for x in detectors)):
        causes.append(
            {
                "category": "agent goal hijacked by its input",
                "because": f"it did several things it had never done, as {len(detectors)} detectors saw independently",
            }
        )
    if any(x.startswith("secrets.") for x in detectors):
        causes.append(
            {"category": "credentials within reach", "because": "it reached for secrets that its task does not need"}
        )
    if any(x.startswith("routing.") for x in detectors):
        causes.append({"category": "routing rule missing", "because": "sensitive data was on its way to a cloud model"})
    if any(x.startswith("sandbox.") for x in detectors):
        causes.append(
            {"category": "code execution in the sandbox", "because": "it made system calls that its filter denies"}
        )
    return causes or [{"category": "unknown", "because": "no rule speaks for this set of findings"}]


def suggestions(incident: Incident, versions: tuple[PolicyVersion, ...]) -> list[str]:
    """What to change, each with what it rests on."""
    lines: list[str] = []
    if suspect := _suspect(incident, versions):
        lines.append(f"keep version {suspect.version} of the policy out; its change is in this review as policy_diff")
    hosts = {
        plain(target, 120) for finding in incident.findings for kind, target in finding.attempts if kind == "connect"
    }
    lines += [f"deny {host} by name, so that a wider rule cannot open it again" for host in sorted(hosts)[:20]]
    lines += [
        f"replace {plain(x['name'], 80)} by hand: no action does it for a {plain(x['kind'], 40)}"
        for x in _scope(incident).get("credentials", ())
        if x["kind"] not in _REPLACED
    ]
    for x in incident.receipts:
        if x.state is not ReceiptState.VERIFIED and x.action not in {"incident.review", "ticket.write"}:
            lines.append(f"finish {x.action}: it is {x.state.value} ({plain(x.error or x.proof, 120)})")
    return lines


def _scope(incident: Incident) -> Mapping[str, Any]:
    found = [x.outcome for x in incident.receipts if x.action == "incident.scope" and x.state is ReceiptState.VERIFIED]
    return found[-1] if found else {}


def _versions(ctx: Context, policy: str) -> tuple[PolicyVersion, ...]:
    try:
        return ctx.world.policies.versions(policy)
    except NotFound:
        return ()


def _plan(ctx: Context, params: ReviewParams) -> Plan:
    return Plan(changes=(), checks=(f"policy {params.policy} has {len(_versions(ctx, params.policy))} versions",))


def _capture(ctx: Context, _params: ReviewParams) -> Record:
    return {"findings": len(ctx.incident.findings), "receipts": len(ctx.incident.receipts)}


def _apply(ctx: Context, params: ReviewParams, _captured: Record) -> Record:
    versions = _versions(ctx, params.policy)
    suspect = _suspect(ctx.incident, versions)
    outcome: dict[str, Any] = {
        "times_ms": times_ms(ctx.incident),
        "root_causes": root_causes(ctx.incident, versions),
        "suggestions": suggestions(ctx.incident, versions),
        "policy_diff": suspect.diff[:_LONGEST_DIFF] if suspect else "",
    }
    return outcome


def _verify(ctx: Context, _params: ReviewParams, captured: Record, outcome: Record) -> Verification:
    """The times in the review are the record's own, read again."""
    now = times_ms(ctx.incident)
    same = all(now.get(name) == value for name, value in outcome["times_ms"].items())
    known = sum(value is not None for value in now.values())
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if known == len(now) else Enforcement.PARTIAL,
        proof=f"{known} of {len(now)} times are measured; {len(outcome['root_causes'])} root-cause candidates, "
        f"{len(outcome['suggestions'])} suggestions, from {captured['findings']} findings"
        + ("" if same else "; the record has changed since"),
    )


ACTION = Action(
    id="incident.review",
    summary="Record the times, the root-cause candidates and what to change.",
    phase=Phase.POST_INCIDENT,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"policies:versions"}),
    scope="reads only",
    openc2="investigate",
    params=ReviewParams,
    key=lambda params: f"{params.policy}:{params.revision}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
