"""See that the local model answers again, by the router's own report."""

from __future__ import annotations

import time

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import of_kind
from clawback.model import Enforcement, Lifecycle, Phase, Source
from clawback.reports.escape import plain

__all__ = ["ACTION", "RecoveredParams"]

_THERE = frozenset({"available", "alive", "started", "ready"})
_STALE_NS = 5 * 60 * 1_000_000_000  # the router looks twice a minute; one that says nothing for so long sees nothing


class RecoveredParams(Params):
    """`after_ns`: only a report from then on counts, and in any case only one made after the last finding."""

    after_ns: int = Field(0, ge=0)


def _last(ctx: Context, params: RecoveredParams) -> Lifecycle | None:
    found = max((finding.time_ns for finding in ctx.incident.findings), default=ctx.incident.opened_ns)
    since = max(params.after_ns, found + 1)
    said = [x for x in of_kind(ctx, Lifecycle, Source.ROUTING, since) if x.component == "local-model"]
    return max(said, key=lambda event: event.time_ns, default=None)


def _said(event: Lifecycle | None) -> str:
    return f"the router's last report: {plain(event.status, 40)}" if event else "the router has reported nothing since"


def _verify(ctx: Context, params: RecoveredParams, _captured: Record, _outcome: Record) -> Verification:
    last = _last(ctx, params)
    silent = last is not None and time.time_ns() - last.time_ns > _STALE_NS
    there = last is not None and last.status in _THERE and not silent
    return Verification(
        verified=there,
        enforcement=Enforcement.FULL if there else Enforcement.NONE,
        proof=_said(last)
        + ("; for more than five minutes it has said nothing: does the gateway run?" if silent else "")
        + ("" if there else "; restore the model, then `clawback resume`"),
    )


ACTION = Action(
    id="routing.recovered",
    summary="See that the local model answers again.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"telemetry:read"}),
    scope="reads only",
    openc2="investigate",
    params=RecoveredParams,
    key=lambda params: str(params.after_ns),
    plan=lambda ctx, params: Plan(changes=(), checks=(_said(_last(ctx, params)),)),
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
