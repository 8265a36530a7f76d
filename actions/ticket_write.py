"""Open or update the incident's ticket, and read it back.

One incident has one ticket. It is written at several points of a response; `stage` names the point, so that a resumed
response writes each of them once.
"""

from __future__ import annotations

from hashlib import sha256

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.model import Enforcement, Phase
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
    return {key: _hash(text) for key, text in ctx.world.tickets.read(ctx.incident.id).items() if key in _FORMS}


_FORMS = ("markdown", "jira")


def _apply(ctx: Context, _params: TicketParams, _captured: Record) -> Record:
    texts = {"markdown": markdown(ctx.incident), "jira": jira(ctx.incident)}
    where = ctx.world.tickets.write(ctx.incident.id, markdown=texts["markdown"], jira=texts["jira"])
    return {"where": dict(where), "sha256": {key: _hash(text) for key, text in texts.items()}}


def _verify(ctx: Context, params: TicketParams, _captured: Record, outcome: Record) -> Verification:
    read = ctx.world.tickets.read(ctx.incident.id)
    wrong = [key for key in _FORMS if key not in read or _hash(read[key]) != outcome["sha256"][key]]
    good = [key for key in _FORMS if key not in wrong]
    enforcement = Enforcement.FULL if not wrong else Enforcement.PARTIAL if good else Enforcement.NONE
    proof = "; ".join(
        [f"{key} read back, SHA-256 {outcome['sha256'][key][:12]}" for key in good]
        + [f"{key} {'reads back differently' if key in read else 'is not there'}" for key in wrong]
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
