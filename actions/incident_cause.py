"""Record what a person decided the root cause to be: on record with who said so and why; the review puts it first."""

from __future__ import annotations

from pydantic import Field, field_validator

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._causes import CATEGORIES
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.model import Enforcement, Phase

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
    return Verification(
        verified=True, enforcement=Enforcement.FULL, proof=f"{ctx.actor} decided: {params.cause}, {params.reason}"
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
    verify_reverted=nothing_reverted,
)
