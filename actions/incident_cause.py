"""Record what a person decided the root cause to be: on record with who said so and why; the review puts it first."""

from __future__ import annotations

from pydantic import Field, field_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._causes import CATEGORIES
from clawback.actions._reading import revert_nothing
from clawback.log import redact
from clawback.model import Enforcement, Phase
from clawback.reports.escape import plain

__all__ = ["ACTION", "CauseParams"]


class CauseParams(Params):
    """`cause` is one of `CATEGORIES`. `revision` tells a later decision from the first."""

    cause: str
    reason: str = Field(min_length=1, max_length=500)
    revision: int = Field(0, ge=0)

    @field_validator("cause")
    @classmethod
    def _known(cls, cause: str) -> str:
        if cause not in CATEGORIES:
            raise ValueError(f"no such cause: {cause[:60]!r}; there are {', '.join(CATEGORIES)}")
        return cause


def _plan(_ctx: Context, params: CauseParams) -> Plan:
    return Plan(changes=(f"+ root cause: {params.cause}",))


def _verify(ctx: Context, params: CauseParams, _captured: Record, _outcome: Record) -> Verification:
    """The record is read again: what stands there is what the review goes by."""
    receipts = ctx.reread().receipts if ctx.reread else ()
    stands = [x for x in receipts if x.action == ACTION.id and x.params.get("revision") == params.revision]
    wanted = (ctx.actor, redact(params.model_dump(mode="json")))
    if not any((x.actor, dict(x.params)) == wanted for x in stands):
        said = [f"{plain(x.actor, 80)} decided: {plain(x.params.get('cause', ''), 60)}" for x in stands]
        return Verification(
            verified=False,
            enforcement=Enforcement.NONE,
            proof=f"the record does not say so: {'; '.join(said[:3]) or 'it has no such decision'}",
        )
    return Verification(
        verified=True,
        enforcement=Enforcement.FULL,
        proof=f"on record: {plain(ctx.actor, 80)} decided: {params.cause}, {plain(params.reason, 300)}",
    )


def _verify_reverted(_ctx: Context, params: CauseParams, _captured: Record) -> Verification:
    return Verification(
        verified=True,
        enforcement=Enforcement.FULL,
        proof=f"the decision for {params.cause} is taken back with its receipt: the review goes by those that stand",
    )


ACTION = Action(
    id="incident.cause",
    summary="Record what a person decided the root cause to be.",
    phase=Phase.POST_INCIDENT,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"journal:write"}),
    scope="the record of one incident",
    openc2="set",
    params=CauseParams,
    key=lambda params: str(params.revision),
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=_verify_reverted,
)
