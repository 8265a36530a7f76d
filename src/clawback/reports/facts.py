"""What a ticket says, drawn from the incident record alone: plain data that the Markdown and the Jira form share.

Strings here are as they were recorded. Whoever renders them bounds and escapes them (`clawback.reports.escape`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clawback.model import Incident, Phase, Receipt, ReceiptState
from clawback.reports.times import first_event_ns, times_ms

__all__ = ["Facts", "Line", "Step", "draw"]

_CREDENTIAL_STEPS = ("vault.", "aws.", "credential.")
_LONGEST_INSTRUCTIONS = 2000
_DONE = (ReceiptState.VERIFIED, ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One receipt: `at_ms` since the first rogue event, None where the step was never reached."""

    action: str
    phase: str
    state: str
    enforcement: str
    proof: str
    at_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the timeline, in milliseconds since the first rogue event."""

    at_ms: float
    phase: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A ticket's content. `title` is one line; `scoped` is False while the incident's scope was not recorded."""

    id: str
    title: str
    status: str
    incident: Incident
    scoped: bool
    verdict: str
    reasons: tuple[str, ...]
    agent: tuple[tuple[str, str], ...]
    policies: tuple[str, ...]
    radius: tuple[tuple[str, str], ...]
    tool_calls: tuple[str, ...]
    data: tuple[str, ...]
    destinations: tuple[str, ...]
    instructions: str
    credentials: tuple[tuple[str, str, str], ...]  # kind, name, identifiers
    containment: tuple[Step, ...]
    credential_steps: tuple[Step, ...]
    other_steps: tuple[Step, ...]
    phases: tuple[tuple[str, str, int, int], ...]  # phase, CSF function, verified, all
    times: dict[str, float | None]
    timeline: tuple[Line, ...]
    artefacts: tuple[tuple[str, str], ...]
    review: tuple[str, ...]
    policy_diff: tuple[str, ...]  # lines of the change that the review suspects


def _outcome(incident: Incident, action: str) -> Mapping[str, Any]:
    """The newest verified outcome of an action; empty where there is none."""
    found = [x.outcome for x in incident.receipts if x.action == action and x.state is ReceiptState.VERIFIED]
    return found[-1] if found else {}


def _step(receipt: Receipt, zero: int) -> Step:
    at = receipt.verified_ns or receipt.applied_ns or receipt.intended_ns
    return Step(
        action=receipt.action,
        phase=receipt.phase.value,
        state=receipt.state.value,
        enforcement=receipt.enforcement.value if receipt.enforcement else "",
        proof=receipt.proof or receipt.error,
        at_ms=round((at - zero) / 1e6, 1) if at else None,
    )


def _timeline(incident: Incident, zero: int) -> tuple[Line, ...]:
    lines = [
        (finding.time_ns, Phase.IDENTIFY.value, "rogue event", f"{finding.detector}: {finding.resource}")
        for finding in incident.findings
    ]
    lines += [(entry.at_ns, entry.phase.value, entry.what, entry.detail) for entry in incident.timeline]
    lines.sort(key=lambda line: line[0])
    return tuple(
        Line(at_ms=round((at - zero) / 1e6, 1), phase=phase, what=what, detail=detail)
        for at, phase, what, detail in lines
    )


def _pairs(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    def said(value: Any) -> str:
        return ", ".join(str(item) for item in value) or "none" if isinstance(value, (list, tuple)) else str(value)

    return tuple((key.replace("_", " "), said(value)) for key, value in values.items())


def _radius(scope: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The estimate, then what it rests on: identities, tools, sources."""
    rows = list(_pairs(scope.get("blast_radius", {})))
    if scope.get("identities"):
        rows.append(("identities", ", ".join(f"{x.get('who')} ({x.get('source')})" for x in scope["identities"])))
    if scope.get("tools"):
        rows.append(("tools", ", ".join(map(str, scope["tools"]))))
    rows += [(f"{one.get('id')} is in scope", ", ".join(map(str, one.get("why", ())))) for one in _related(scope)]
    return (*rows, *((f"source of {name}", str(said)) for name, said in scope.get("sources", {}).items()))


def _related(scope: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return tuple(scope.get("related", ()))


def _agent(incident: Incident, scope: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    known = scope.get("agent", {})
    rows = [("agent", incident.agent), ("instance", incident.instance)]
    rows += [(name, str(known[name])) for name in ("tenant", "team") if known.get(name)]
    if known.get("tags"):
        rows.append(("tags", ", ".join(map(str, known["tags"]))))
    return tuple(rows)


def _artefacts(incident: Incident) -> tuple[tuple[str, str], ...]:
    evidence = _outcome(incident, "evidence.collect")
    rows = []
    if evidence:
        rows.append(("evidence", f"{evidence.get('folder', '')} ({evidence.get('files', 0)} files)"))
        rows.append(("evidence manifest, SHA-256", str(evidence.get("sha256", ""))))
    restored = _outcome(incident, "policy.restore")
    if restored:
        rows.append(("policy restored", f"version {restored.get('version')} ({str(restored.get('sha256', ''))[:12]})"))
    return tuple(rows)


def _instructions(incident: Incident, scope: Mapping[str, Any]) -> str:
    """The command, and what its transcripts say that it was told, the newest last."""
    told = [str(one) for one in _outcome(incident, "transcripts.preserve").get("prompts", ())]
    command = str(scope.get("instructions", ""))
    return " · ".join([*([command] if command else []), *told])[:_LONGEST_INSTRUCTIONS]


def _review(incident: Incident) -> tuple[str, ...]:
    found = _outcome(incident, "incident.review")
    causes = [f"{x.get('category')}: {x.get('because')}" for x in found.get("root_causes", ())]
    return tuple(causes + [str(x) for x in found.get("suggestions", ())])


def _status(incident: Incident) -> str:
    """Where it stands, and what keeps it open. The ticket's own step is not counted: it is being made."""
    steps = [x for x in incident.receipts if x.action != "ticket.write"]
    short = [f"{x.action} {x.state.value}" for x in steps if not x.state.settled]
    where = f"{incident.status.value}, phase {incident.phase.value} (CSF {incident.phase.csf})"
    if stand := [x.action for x in steps if x.state is ReceiptState.ACCEPTED]:
        where += f", accepted by a person as they stand: {', '.join(stand[:8])}"
    if not short:
        return f"{where}: all {len(steps)} steps so far are settled"
    more = f" and {len(short) - 8} more" if len(short) > 8 else ""
    return f"{where}: {len(short)} of {len(steps)} steps are not settled: {', '.join(short[:8])}{more}"


def draw(incident: Incident) -> Facts:
    """Everything a ticket says about this incident, as it stands."""
    zero = first_event_ns(incident)
    scope = _outcome(incident, "incident.scope")
    worst = max(incident.findings, key=lambda x: x.severity, default=None)
    calls = [f"{kind} {target}" for finding in incident.findings for kind, target in finding.attempts]
    steps = [_step(receipt, zero) for receipt in incident.receipts]
    credential = [x for x in steps if x.action.startswith(_CREDENTIAL_STEPS)]
    containment = [x for x in steps if x.phase == Phase.CONTAIN.value and x not in credential]
    versions = {f"{x.policy} version {x.policy_version}" for x in incident.findings}
    if known := scope.get("policy"):
        versions.add(f"{known.get('name')} version {known.get('version')}")
    by_phase = {phase: [x for x in incident.receipts if x.phase is phase] for phase in Phase}
    return Facts(
        id=incident.id,
        title=worst.title if worst else "agent contained by hand",
        status=_status(incident),
        incident=incident,
        scoped=bool(scope),
        verdict=str(scope.get("assessment", {}).get("verdict", "not assessed yet")),
        reasons=tuple(map(str, scope.get("assessment", {}).get("reasons", ()))),
        agent=_agent(incident, scope),
        policies=tuple(sorted(versions)),
        radius=_radius(scope),
        tool_calls=tuple(dict.fromkeys(calls)),
        data=tuple(map(str, scope.get("data", ()))),
        destinations=tuple(map(str, scope.get("destinations", ()))),
        instructions=_instructions(incident, scope),
        credentials=tuple(
            (str(x["kind"]), str(x["name"]), ", ".join(f"{k}={v}" for k, v in x["identifiers"].items()))
            for x in scope.get("credentials", ())
        ),
        containment=tuple(containment),
        credential_steps=tuple(credential),
        other_steps=tuple(x for x in steps if x not in credential and x not in containment),
        phases=tuple(
            (phase.value, phase.csf, sum(x.state in _DONE for x in found), len(found))
            for phase, found in by_phase.items()
        ),
        times=times_ms(incident),
        timeline=_timeline(incident, zero),
        artefacts=_artefacts(incident),
        review=_review(incident),
        policy_diff=tuple(str(_outcome(incident, "incident.review").get("policy_diff", "")).splitlines()[:80]),
    )
