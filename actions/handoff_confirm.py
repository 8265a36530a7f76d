"""Wait for a person to confirm what Clawback cannot see or do: a cleaned host, ended sessions of a person.

The step is the question, and the approval is the answer: it is made only when somebody granted it, and the audit record
says who. It proves that somebody said so, never that it is so, and its receipt claims no more.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.model import Enforcement, Phase

__all__ = ["ACTION", "ConfirmParams"]


class ConfirmParams(Params):
    """`what` is confirmed, as a statement: `the host is clean`. `about` names the thing."""

    what: str = Field(min_length=1, max_length=300)
    about: str = Field("", max_length=200)


def _verify(_ctx: Context, params: ConfirmParams, _captured: Record, _outcome: Record) -> Verification:
    return Verification(
        verified=True,
        enforcement=Enforcement.PARTIAL,  # a person's word, nothing observed
        proof=f"confirmed, not observed: {params.what}" + (f" ({params.about})" if params.about else ""),
    )


ACTION = Action(
    id="handoff.confirm",
    summary="Have a person confirm what nothing here can observe.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"approvals:ask"}),
    scope="nothing: it asks",
    openc2="query",
    consent=True,
    params=ConfirmParams,
    key=lambda params: f"{params.what}:{params.about}",
    plan=lambda _ctx, params: Plan(changes=(), checks=(f"to be confirmed: {params.what} {params.about}".strip(),)),
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
