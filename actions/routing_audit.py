"""Audit the routing table as it was used: which classes of data went to which model, and what never should have."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import HOUR_NS, MOST, amiss, began_ns, cut, read, top, until_now
from clawback.model import Enforcement, Phase, RouteActivity, Sensitivity, Source

__all__ = ["ACTION", "AuditParams"]

_SENSITIVE = frozenset({Sensitivity.CONFIDENTIAL, Sensitivity.RESTRICTED})
_BEFORE_NS = 24 * HOUR_NS  # a wrong route was wrong before somebody saw it
_DOUBTFUL = 0.6  # below this the router guessed


class AuditParams(Params):
    """`agent`: only its queries; empty: everybody's. `findings`: more of them want another look."""

    agent: str = Field("", max_length=128)
    findings: int = Field(0, ge=0)


def _queries(ctx: Context, params: AuditParams, since_ns: int, until_ns: int) -> tuple[list[RouteActivity], bool]:
    """What is counted, and whether nothing was left out."""
    sighted = read(ctx, Source.ROUTING, since_ns, until_ns=until_ns, agent=params.agent)
    return [event for event in sighted.events if isinstance(event, RouteActivity)], sighted.complete


def _leaked(event: RouteActivity) -> bool:
    return not event.blocked and event.destination == "cloud" and event.sensitivity in _SENSITIVE


def _audit(ctx: Context, params: AuditParams) -> dict[str, Any]:
    since, until = began_ns(ctx, _BEFORE_NS), until_now()
    queries, complete = _queries(ctx, params, since, until)
    routes: Counter[tuple[str, str, str, str]] = Counter()
    leaks: list[RouteActivity] = []
    held = doubtful = 0
    for event in queries:
        held += event.blocked
        doubtful += event.confidence < _DOUBTFUL
        routes[cut(event.model), cut(event.endpoint), cut(event.destination), event.sensitivity.value] += 1
        if _leaked(event):
            leaks.append(event)
    table = [
        {"model": model, "endpoint": endpoint, "destination": there, "sensitivity": kind, "queries": count}
        for (model, endpoint, there, kind), count in routes.most_common(MOST)
    ]
    return {
        "since_ns": since,
        "until_ns": until,
        "complete": complete,
        "queries": len(queries),
        "held": held,
        "doubtful": doubtful,
        "table": table,
        "leaks": len(leaks),
        "leaked_by": top(event.agent for event in leaks),
        "leaked_types": top(kind for event in leaks for kind in (event.data_types or ("unnamed",))),
        "leaked_to": top(f"{event.model}@{event.endpoint}" for event in leaks),
        "first_leak_ns": min((event.time_ns for event in leaks), default=0),
        "last_leak_ns": max((event.time_ns for event in leaks), default=0),
    }


def _plan(_ctx: Context, params: AuditParams) -> Plan:
    return Plan(changes=(), checks=(f"reads the routing of {params.agent or 'all agents'} of the day before",))


def _verify(ctx: Context, params: AuditParams, _captured: Record, outcome: Record) -> Verification:
    """Counted again over the same span, and at least what the findings say is in it."""
    until = int(outcome["until_ns"])
    again = _queries(ctx, params, int(outcome["since_ns"]), until)[0]
    reported = sum(x.detector == "routing.sensitive-to-cloud" for x in ctx.incident.findings)
    leaks = sum(_leaked(event) for event in again)
    wrong = amiss(int(outcome["queries"]), again, until)
    if not wrong and (leaks < reported or leaks < outcome["leaks"]):
        wrong = "the record does not hold all that was reported"
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.FULL if outcome["complete"] and not wrong else Enforcement.PARTIAL,
        proof=f"{outcome['queries']} queries of {params.agent or 'all agents'} by {len(outcome['table'])} routes: "
        f"{outcome['leaks']} with sensitive data went to the cloud ({len(outcome['leaked_by'])} agents), "
        f"{outcome['held']} were held back, {outcome['doubtful']} were classified below {_DOUBTFUL:g} confidence"
        + ("" if outcome["complete"] else "; there is more on record than was read: it is of the newest alone")
        + (f"; {wrong}" if wrong else ""),
    )


ACTION = Action(
    id="routing.audit",
    summary="Say from the record which data went to which model.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"telemetry:read"}),
    scope="reads only",
    openc2="investigate",
    params=AuditParams,
    key=lambda params: f"{params.agent}:{params.findings}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=lambda ctx, params, _captured: _audit(ctx, params),
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
