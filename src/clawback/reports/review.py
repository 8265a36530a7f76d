"""An incident's review, as data and as Markdown: causes, times, reach, what happened when, and what to change.

Whatever an agent may have chosen is escaped; the policy's difference stands in a code block that nothing in it ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from clawback.model import Incident, Phase, ReceiptState
from clawback.reports.escape import inert, plain, source
from clawback.reports.facts import draw

__all__ = ["FORMAT", "data", "markdown", "revision", "text"]

FORMAT = "clawback-review/1"
_MOST_LINES = 400
_WRITES_ABOUT_THE_OTHERS = frozenset({"ticket.write", "incident.review", "compliance.document", "notify.send"})
_COUNTS = ("credentials", "destinations", "data_sets")


def revision(incident: Incident) -> int:
    """Grows with every attempt at every step, but for those that only write about the others."""
    return sum(x.attempts for x in incident.receipts if x.action not in _WRITES_ABOUT_THE_OTHERS)


def data(
    incident: Incident,
    *,
    causes: list[dict[str, Any]],
    suggestions: list[str],
    suspected: str,
    proposed: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything the review says, as JSON holds it.

    `metrics` are milliseconds from the first rogue event, None where it was not observed: `detected` (time to detect),
    `contained`, `verified`, `credentials_refused`, `recovered`; and counts. `proposed` is a policy's difference.
    """
    facts = draw(incident)
    radius = _radius(incident)
    times = facts.times
    return {
        "format": FORMAT,
        "incident": incident.id,
        "agent": incident.agent,
        "instance": incident.instance,
        "drill": incident.drill,
        "severity": incident.severity.name.lower(),
        "title": plain(facts.title, 200),
        "root_causes": causes,
        "metrics": {
            "detected_ms": times["detected"],
            "contained_ms": times["isolated"],
            "verified_ms": times["verified"],
            "credentials_refused_ms": times["credentials_refused"],
            "recovered_ms": times["recovered"],
            "findings": len(incident.findings),
            "steps": len(incident.receipts),
            "steps_verified": sum(x.state is ReceiptState.VERIFIED for x in incident.receipts),
            "people_asked": sum(x.action == "recovery.permit" for x in incident.receipts),
        },
        "blast_radius": {
            "level": radius.get("level", "not assessed"),
            **{name: radius.get(name, 0) for name in _COUNTS},
            "agents_sharing_credentials": len(radius.get("agents_sharing_credentials", ())),
            "agents_under_the_same_policy": len(radius.get("agents_under_the_same_policy", ())),
        },
        "timeline": [
            {"at_ms": x.at_ms, "phase": x.phase, "what": plain(x.what, 200), "detail": plain(x.detail, 300)}
            for x in facts.timeline[:_MOST_LINES]
        ],
        "timeline_left_out": max(0, len(facts.timeline) - _MOST_LINES),
        "suggestions": suggestions,
        "suspected_change": suspected,
        "proposed_change": dict(proposed),
    }


def _radius(incident: Incident) -> Mapping[str, Any]:
    found = [x.outcome for x in incident.receipts if x.action == "incident.scope" and x.state is ReceiptState.VERIFIED]
    radius: Mapping[str, Any] = found[-1].get("blast_radius", {}) if found else {}
    return radius


def text(review: Mapping[str, Any]) -> str:
    """As JSON."""
    return json.dumps(review, ensure_ascii=False, indent=2) + "\n"


def markdown(review: Mapping[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"# Review of {inert(review['incident'])}{' (drill)' if review['drill'] else ''}",
        "",
        f"Agent {inert(review['agent'])}, instance {inert(review['instance'])}, severity {review['severity']}.",
        "",
        inert(review["title"]),
        "",
        f"NIST phase {Phase.POST_INCIDENT.value}, CSF 2.0 {Phase.POST_INCIDENT.csf}.",
        "",
        "## Root cause",
        "",
    ]
    for cause in review["root_causes"]:
        by = " (decided)" if cause.get("decided_by") else ""
        lines.append(f"- **{inert(cause['category'])}**{by}, confidence {cause['confidence']:.2f}")
        lines += [f"  - {inert(fact)}" for fact in cause["evidence"]]
    lines += ["", "## Metrics", "", "| what | value |", "|---|---|"]
    lines += [
        f"| {name.removesuffix('_ms').replace('_', ' ')} | {_value(name, x)} |" for name, x in review["metrics"].items()
    ]
    lines += ["", "## Blast radius", "", "| what | value |", "|---|---|"]
    lines += [f"| {_words(name)} | {inert(value)} |" for name, value in review["blast_radius"].items()]
    lines += ["", "## What to change", ""]
    lines += [f"- {inert(line)}" for line in review["suggestions"]] or ["Nothing is suggested."]
    lines += _change(review["proposed_change"])
    lines += _block("Suspected change of policy", review["suspected_change"])
    lines += ["", "## Timeline", "", "| ms | phase | what | detail |", "|---|---|---|---|"]
    lines += [
        f"| {x['at_ms']:,.1f} | {x['phase']} | {inert(x['what'])} | {inert(x['detail'])} |" for x in review["timeline"]
    ]
    if review["timeline_left_out"]:
        lines += ["", f"{review['timeline_left_out']} more lines are in the incident record."]
    return "\n".join(lines) + "\n"


def _words(name: str) -> str:
    return name.removesuffix("_ms").replace("_", " ")


def _value(name: str, value: Any) -> str:
    if value is None:
        return "not observed"
    return f"{value:,.1f} ms" if name.endswith("_ms") else f"{value:,}"


def _change(proposed: Mapping[str, Any]) -> list[str]:
    if not proposed:
        return []
    head = (
        f"Proposed for policy {inert(proposed['policy'])} version {proposed['version']}: denies "
        f"{proposed['denied']} rogue calls, keeps {proposed['kept']} of use."
    )
    lines = ["", head]
    lines += [f"- would no longer be allowed, and was of use: {inert(one)}" for one in proposed["lost"]]
    lines += [f"- stays open, mend it by hand: {inert(one)}" for one in proposed["open"]]
    return lines + _block("Proposed change of policy", proposed["diff"])


def _block(title: str, diff: str) -> list[str]:
    if not diff:
        return []
    return ["", f"## {title}", "", *(f"    {source(line)}" for line in diff.splitlines()[:_MOST_LINES])]
