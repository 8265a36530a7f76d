"""Say what the agent really did, from recorded telemetry: where data went, what was read, which tools it called."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import MOST, amiss, began_ns, cut, read, recorded, top, until_now
from clawback.model import (
    CredentialUse,
    Enforcement,
    Event,
    FileActivity,
    HttpActivity,
    NetworkActivity,
    Phase,
    Source,
)

__all__ = ["ACTION", "AccessParams"]

_KINDS = (
    (Source.POLICY, (HttpActivity, NetworkActivity)),
    (Source.SANDBOX, FileActivity),
    (Source.EXTERNAL, CredentialUse),
)


class AccessParams(Params):
    """The agent and its instance. `findings`: how many there were; more of them want another look."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    findings: int = Field(0, ge=0)


def _mine(ctx: Context, params: AccessParams, since_ns: int, until_ns: int) -> tuple[list[Event], bool]:
    """What the account is drawn from, and whether nothing was left out."""
    found: list[Event] = []
    complete = True
    for source, kinds in _KINDS:
        sighted = read(ctx, source, since_ns, until_ns=until_ns, agent=params.agent, instance=params.instance)
        found += [event for event in sighted.events if isinstance(event, kinds)]
        complete = complete and sighted.complete
    return found, complete


def _account(ctx: Context, params: AccessParams) -> dict[str, Any]:
    since, until = began_ns(ctx), until_now()
    events, complete = _mine(ctx, params, since, until)
    totals: dict[tuple[str, str], tuple[int, int]] = {}
    requests = [event for event in events if isinstance(event, HttpActivity)]
    refused = [f"{x.host}:{x.port}" for x in requests if x.blocked]
    for flow in events:
        if not isinstance(flow, NetworkActivity):
            continue
        if flow.blocked:
            refused.append(f"{flow.host}:{flow.port}")
            continue
        # Each report has the connection's totals so far: the largest is the last.
        place = (f"{flow.host}:{flow.port}", flow.connection)
        out, into = totals.get(place, (0, 0))
        totals[place] = (max(out, flow.bytes_out), max(into, flow.bytes_in))
    sent: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (place_name, _), (out, into) in totals.items():
        sent[cut(place_name)][0] += out
        sent[cut(place_name)][1] += into
    files = [x for x in events if isinstance(x, FileActivity)]
    uses = [x for x in events if isinstance(x, CredentialUse)]
    ordered = sorted(sent.items(), key=lambda item: -item[1][0])[:MOST]
    return {
        "since_ns": since,
        "until_ns": until,
        "events": len(events),
        "complete": complete,
        "destinations": {name: {"sent": out, "received": into} for name, (out, into) in ordered},
        "bytes_sent": sum(out for out, _ in sent.values()),
        "bytes_received": sum(into for _, into in sent.values()),
        "read": top(f"{x.method} {x.host}{x.path.partition('?')[0]}" for x in requests if not x.blocked),
        "tools_called": top(call for x in requests if not x.blocked for call in x.calls),
        "tools_refused": top(call for x in requests if x.blocked for call in x.calls),
        "destinations_refused": top(refused),
        "files_refused": top(x.path for x in files if x.blocked or x.access == "canary"),
        "credential_uses": top(
            f"{x.credential} at {x.issuer} from {x.origin or 'unknown'}{' (elsewhere)' if x.elsewhere else ''}"
            for x in uses
        ),
    }


def _plan(ctx: Context, params: AccessParams) -> Plan:
    return Plan(changes=(), checks=(f"reads what is recorded of {params.agent} since {began_ns(ctx)} ns",))


def _verify(ctx: Context, params: AccessParams, _captured: Record, outcome: Record) -> Verification:
    """The span reads the same again, and the events that the findings rest on are in it: else the account is of
    something else.
    """
    wanted = {uid for finding in ctx.incident.findings for uid in finding.events}
    since = int(outcome["since_ns"])
    streams = {uid.partition("/")[0] for uid in wanted}
    for source in Source:
        if source.value in streams and wanted:
            wanted -= {event.uid for event in recorded(ctx, source, since)}
    missing, until = len(wanted), int(outcome["until_ns"])
    wrong = amiss(int(outcome["events"]), _mine(ctx, params, since, until)[0], until)
    whole = outcome["complete"] and not missing and not wrong
    return Verification(
        verified=not missing and not wrong,
        enforcement=Enforcement.FULL if whole else Enforcement.PARTIAL,
        proof=f"{outcome['bytes_sent']} bytes sent to {len(outcome['destinations'])} destinations, "
        f"{outcome['bytes_received']} received; {len(outcome['read'])} things read, "
        f"{sum(outcome['tools_called'].values())} tool calls made, {sum(outcome['tools_refused'].values())} refused; "
        f"{len(outcome['credential_uses'])} uses of credentials on the issuers' record"
        + ("" if outcome["complete"] else "; there is more on record than was read: it is of the newest alone")
        + (f"; {missing} of the findings' events are not in the telemetry any more" if missing else "")
        + (f"; {wrong}" if wrong else ""),
    )


ACTION = Action(
    id="access.review",
    summary="Say from the record what the agent sent, read and called.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"telemetry:read"}),
    scope="reads only",
    openc2="investigate",
    params=AccessParams,
    key=lambda params: f"{params.agent}:{params.instance}:{params.findings}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=lambda ctx, params, _captured: _account(ctx, params),
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
