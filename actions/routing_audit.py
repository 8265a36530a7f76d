"""Audit the routing table as it was used: which classes of data went to which model, and what never should have."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import HOUR_NS, MOST, began_ns, cut, of_kind, top
from clawback.model import Enforcement, Phase, RouteActivity, Sensitivity, Source

__all__ = ["ACTION", "AuditParams"]

_SENSITIVE = frozenset({Sensitivity.CONFIDENTIAL, Sensitivity.RESTRICTED})
_BEFORE_NS = 24 * HOUR_NS  # a wrong route was wrong before somebody saw it
_DOUBTFUL = 0.6  # below this the router guessed


class AuditParams(Params):
    """`agent`: only its queries; empty: everybody's. `findings`: more of them want another look."""

    agent: str = Field("", max_length=128)
    findings: int = Field(0, ge=0)


def _audit(ctx: Context, params: AuditParams) -> dict[str, Any]:
    since = began_ns(ctx, _BEFORE_NS)
    routes: Counter[tuple[str, str, str, str]] = Counter()
    leaks: list[RouteActivity] = []
    queries = held = doubtful = 0
    for event in of_kind(ctx, RouteActivity, Source.ROUTING, since):
        if params.agent not in ("", event.agent):
            continue
        queries += 1
        held += event.blocked
        doubtful += event.confidence < _DOUBTFUL
        routes[cut(event.model), cut(event.endpoint), event.destination, event.sensitivity.value] += 1
        if not event.blocked and event.destination == "cloud" and event.sensitivity in _SENSITIVE:
            leaks.append(event)
    table = [
        {"model": model, "endpoint": endpoint, "destination": there, "sensitivity": kind, "queries": count}
        for (model, endpoint, there, kind), count in routes.most_common(MOST)
    ]
    return {
        "since_ns": since,
        "queries": queries,
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
    """Counted again, and at least what the findings say is in it."""
    again = _audit(ctx, params)
    reported = sum(x.detector == "routing.sensitive-to-cloud" for x in ctx.incident.findings)
    short = again["leaks"] < outcome["leaks"] or again["leaks"] < reported
    return Verification(
        verified=not short,
        enforcement=Enforcement.PARTIAL if short else Enforcement.FULL,
        proof=f"{outcome['queries']} queries of {params.agent or 'all agents'} by {len(outcome['table'])} routes: "
        f"{outcome['leaks']} with sensitive data went to the cloud ({len(outcome['leaked_by'])} agents), "
        f"{outcome['held']} were held back, {outcome['doubtful']} were classified below {_DOUBTFUL:g} confidence"
        + ("; the record no longer holds all that was reported" if short else ""),
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
