"""Review the incident: how fast it went, what may have caused it, and what to change so that it does not recur.

Causes are candidates with the facts each rests on, for the post-incident meeting to confirm or strike; what a person
decided stands first. The review is kept as Markdown and JSON, and read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._causes import root_causes, suspect
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions.policy_tighten import proposal
from clawback.errors import ClawbackError, NotFound
from clawback.model import Enforcement, Incident, Phase, PolicyVersion, ReceiptState
from clawback.reports import review
from clawback.reports.escape import plain
from clawback.reports.times import times_ms

__all__ = ["ACTION", "ReviewParams", "suggestions"]

_LONGEST_DIFF = 8000
_REPLACED = frozenset(
    {
        *("vault-approle", "vault-lease", "vault-static-role", "vault-token", "vault-wrapped"),
        *("aws-access-key", "aws-session", "oidc-client"),
    }
)
# Others may depend on these: who runs it must know whom that stops.
_REPLACED_WHEN_ASKED = {"vault-transit": "vault.raise-transit-minimum"}


class ReviewParams(Params):
    """The policy that the agent ran under. `revision` grows as the record does: each is a step of its own."""

    policy: str = Field(min_length=1, max_length=128)
    revision: int = Field(0, ge=0)


def suggestions(incident: Incident, versions: tuple[PolicyVersion, ...]) -> list[str]:
    """What to change, each with what it rests on."""
    lines: list[str] = []
    if wide := suspect(incident, versions):
        lines.append(f"keep version {wide.version} of the policy out; its change is in this review as policy_diff")
    hosts = {
        plain(target, 120) for finding in incident.findings for kind, target in finding.attempts if kind == "connect"
    }
    lines += [f"deny {host} by name, so that a wider rule cannot open it again" for host in sorted(hosts)[:20]]
    for x in _scope(incident).get("credentials", ()):
        name, kind = plain(x["name"], 80), x["kind"]
        if asked := _REPLACED_WHEN_ASKED.get(kind):
            lines.append(f"replace {name}: {asked} does it, and no playbook runs that unasked")
        elif kind == "vault-kv":
            lines.append(f"revoke {name} at its own issuer: Vault only stores it, and whoever copied it has it")
        elif kind not in _REPLACED:
            lines.append(f"replace {name} by hand: no action does it for a {plain(kind, 40)}")
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


def _proposed(ctx: Context, policy: str) -> dict[str, Any]:
    """The policy made narrower by this incident, as `policy.tighten` would make it; empty where it cannot be said."""
    try:
        version = ctx.world.policies.active(policy).version
        made, complete = proposal(ctx, policy, version)
    except ClawbackError as error:
        return {"unavailable": plain(error.message, 200)}
    return {
        "policy": policy,
        "version": version,
        "diff": made.draft.diff[:_LONGEST_DIFF],
        "denied": made.denied,
        "kept": made.kept,
        "lost": [f"{call.kind} {plain(call.target, 120)}" for call in made.lost[:20]],
        "open": [f"{call.kind} {plain(call.target, 120)}" for call in made.still_open[:20]],
        "complete": complete,
    }


def _apply(ctx: Context, params: ReviewParams, _captured: Record) -> Record:
    versions = _versions(ctx, params.policy)
    wide = suspect(ctx.incident, versions)
    proposed = _proposed(ctx, params.policy)
    causes = root_causes(ctx.incident, versions)
    changes = suggestions(ctx.incident, versions)
    if proposed.get("diff"):
        changes.append(f"tighten the policy as proposed: `clawback policy tighten {ctx.incident.id}`")
    said = review.data(
        ctx.incident,
        causes=causes,
        suggestions=changes,
        suspected=wide.diff[:_LONGEST_DIFF] if wide else "",
        proposed=proposed if "diff" in proposed else {},
    )
    texts = {"markdown": review.markdown(said), "json": review.text(said)}
    where = ctx.world.reviews.write(ctx.incident.id, markdown=texts["markdown"], json=texts["json"])
    return {
        "times_ms": times_ms(ctx.incident),
        "root_causes": causes[:5],
        "suggestions": changes[:40],
        "policy_diff": wide.diff[:_LONGEST_DIFF] if wide else "",
        "proposed": {key: value for key, value in proposed.items() if key != "diff"},
        "where": dict(where),
        "sha256": {key: _hash(text) for key, text in texts.items()},
    }


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _verify(ctx: Context, _params: ReviewParams, captured: Record, outcome: Record) -> Verification:
    """The times in the review are the record's own, read again; the files are read back."""
    now = times_ms(ctx.incident)
    same = all(now.get(name) == value for name, value in outcome["times_ms"].items())
    known = sum(value is not None for value in now.values())
    read = ctx.world.reviews.read(ctx.incident.id)
    wrong = [key for key, digest in outcome["sha256"].items() if key not in read or _hash(read[key]) != digest]
    strongest = outcome["root_causes"][0]
    return Verification(
        verified=same and not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL if known == len(now) else Enforcement.PARTIAL,
        proof=f"{known} of {len(now)} times are measured; root cause {strongest['category']} (confidence "
        f"{strongest['confidence']:.2f}), {len(outcome['root_causes'])} candidates; {len(outcome['suggestions'])} "
        f"suggestions, from {captured['findings']} findings; "
        + (f"not as written: {', '.join(wrong)}" if wrong else f"read back, SHA-256 {outcome['sha256']['json'][:12]}")
        + ("" if same else "; the record has changed since"),
    )


ACTION = Action(
    id="incident.review",
    summary="Record the times, the root-cause candidates and what to change.",
    phase=Phase.POST_INCIDENT,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"policies:versions", "policies:draft", "telemetry:read", "reviews:write"}),
    scope="reads; writes the one review of this incident",
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
