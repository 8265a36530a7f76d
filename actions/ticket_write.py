"""Open or update the incident's ticket, and read it back.

One incident has one ticket: files, and an issue where a tracker is configured. The files come first: with the tracker
down they are there, and the step is pending until the issue is too. It is written at several points of a response;
`stage` names the point, so that a resumed response writes each of them once.
"""

from __future__ import annotations

import json
from hashlib import sha256

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.model import Enforcement, Phase
from clawback.reports.adf import request_words
from clawback.reports.ticket import jira, markdown

__all__ = ["ACTION", "TicketParams"]


class TicketParams(Params):
    """`stage`: the point of the response, such as `opened`, `latest`.

    `revision` grows as the record does: each is a step of its own.
    """

    stage: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    revision: int = Field(0, ge=0)


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _plan(ctx: Context, params: TicketParams) -> Plan:
    there = ctx.world.tickets.read(ctx.incident.id)
    verb = "updated" if there else "opened"
    return Plan(changes=(f"+ ticket {ctx.incident.id} {verb} ({params.stage})",))


def _capture(ctx: Context, _params: TicketParams) -> Record:
    return {key: _hash(text) for key, text in ctx.world.tickets.read(ctx.incident.id).items()}


def _apply(ctx: Context, _params: TicketParams, _captured: Record) -> Record:
    texts = {"markdown": markdown(ctx.incident), "jira": jira(ctx.incident)}
    where = ctx.world.tickets.write(ctx.incident.id, markdown=texts["markdown"], jira=texts["jira"])
    if "tracker" in where:
        texts["tracker"] = request_words(json.loads(texts["jira"]))
    return {"where": dict(where), "sha256": {key: _hash(text) for key, text in texts.items()}}


def _verify(ctx: Context, params: TicketParams, _captured: Record, outcome: Record) -> Verification:
    read = ctx.world.tickets.read(ctx.incident.id)
    if "tracker" in outcome["sha256"] and (said := ctx.world.tickets.tracked(ctx.incident.id)) is not None:
        read = {**read, "tracker": said}
    wrong = [key for key in outcome["sha256"] if key not in read or _hash(read[key]) != outcome["sha256"][key]]
    good = [key for key in outcome["sha256"] if key not in wrong]
    names = {"tracker": f"issue {outcome['where'].get('tracker')}"}
    enforcement = Enforcement.FULL if not wrong else Enforcement.PARTIAL if good else Enforcement.NONE
    proof = "; ".join(
        [f"{names.get(key, key)} read back, SHA-256 {outcome['sha256'][key][:12]}" for key in good]
        + [f"{names.get(key, key)} {'reads back differently' if key in read else 'is not there'}" for key in wrong]
    )
    return Verification(verified=not wrong, enforcement=enforcement, proof=f"ticket {params.stage}: {proof}")


ACTION = Action(
    id="ticket.write",
    summary="Open or update the incident's ticket.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.IRREVERSIBLE,  # what was written may have been read
    needs=frozenset({"tickets:write", "tickets:read"}),
    scope="the one ticket of this incident",
    openc2="create",
    params=TicketParams,
    key=lambda params: f"{params.stage}:{params.revision}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
