"""Wait for a person to confirm what Clawback cannot see or do: a cleaned host, ended sessions of a person.

The step is the question, and the approval is the answer, which the receipt names. It proves that somebody said so,
never that it is so, and its receipt claims no more. Where rules let the step pass unasked, nobody has said anything.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.model import ApprovalState, Enforcement, Phase
from clawback.reports.escape import plain

__all__ = ["ACTION", "ConfirmParams"]

_ID = "handoff.confirm"


class ConfirmParams(Params):
    """`what` is confirmed, as a statement: `the host is clean`. `about` names the thing."""

    what: str = Field(min_length=1, max_length=300)
    about: str = Field("", max_length=200)

    @property
    def key(self) -> str:
        """Both, whole: an answer to one statement is none to another."""
        return f"{self.what}:{self.about}"

    @property
    def statement(self) -> str:
        """For people; `about` may be another product's words."""
        return plain(self.what) + (f" ({plain(self.about)})" if self.about else "")


def _who(ctx: Context, params: ConfirmParams) -> tuple[str, ...]:
    """Who granted the question about exactly this, by an answer that this step was made with."""
    for one in reversed(ctx.approvals()):
        asked = (one.action, one.key) == (_ID, f"{_ID}:{params.key}")
        if asked and one.state is ApprovalState.USED and all(vote.grant for vote in one.votes):
            return tuple(vote.who for vote in one.votes)
    return ()


def _verify(ctx: Context, params: ConfirmParams, _captured: Record, _outcome: Record) -> Verification:
    who = _who(ctx, params)
    return Verification(
        verified=bool(who),
        enforcement=Enforcement.PARTIAL if who else Enforcement.NONE,  # a person's word, nothing observed
        proof=f"confirmed, not observed: {params.statement}, says {plain(', '.join(who))}"
        if who
        else f"nobody has confirmed it: {params.statement}; a rule of `approvals.rules` that lets {_ID} pass unasked "
        "wants a quorum",
    )


ACTION = Action(
    id=_ID,
    summary="Have a person confirm what nothing here can observe.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"approvals:ask"}),
    scope="nothing: it asks",
    openc2="query",
    consent=True,
    params=ConfirmParams,
    key=lambda params: params.key,
    plan=lambda _ctx, params: Plan(changes=(), checks=(f"to be confirmed: {params.statement}",)),
    capture=lambda _ctx, _params: {},
    apply=lambda _ctx, _params, _captured: {},
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
