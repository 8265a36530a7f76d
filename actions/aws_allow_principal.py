"""Take off what this incident put on the agent's AWS user and role: denials, boundaries, detached instance profiles.

For recovery, once the keys are replaced and the sessions refused: until then `aws.deny-principal`, `aws.set-boundary`
and `aws.detach-instance-profile` hold whoever has a stolen one. Each is undone from its own record, the last one first,
as if it were reverted. Proof: it is gone, and what the agent held is refused all the same. Undone in turn by putting
them on again.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._aws import tried_refused
from clawback.actions._credentials import enforcement
from clawback.actions.aws_deny_principal import ACTION as DENY
from clawback.actions.aws_detach_instance_profile import ACTION as DETACH
from clawback.actions.aws_set_boundary import ACTION as BOUNDARY
from clawback.model import Enforcement, Phase, ReceiptState

__all__ = ["ACTION", "AllowParams"]

_PUT: dict[str, Action[Any]] = {action.id: action for action in (DENY, BOUNDARY, DETACH)}
_UNDONE = frozenset({ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT, ReceiptState.AWAITING})


class AllowParams(Params):
    """Whose users and roles."""

    agent: str = Field(min_length=1, max_length=128)


def _put(ctx: Context, params: AllowParams) -> list[dict[str, Any]]:
    """The steps of this incident that may have had an effect, first to last."""
    return [
        {"action": x.action, "params": dict(x.params), "captured": dict(x.captured), "outcome": dict(x.outcome)}
        for x in ctx.incident.receipts
        if x.action in _PUT and x.params.get("agent") == params.agent and x.captured_ns and x.state not in _UNDONE
    ]


def _of(step: Record) -> tuple[Action[Any], Any]:
    action = _PUT[step["action"]]
    return action, action.params.model_validate(step["params"])


def _words(step: Record) -> str:
    return f"{step['action']} of {step['params']['name']}"


def _plan(ctx: Context, params: AllowParams) -> Plan:
    steps = _put(ctx, params)
    return Plan(
        changes=tuple(f"- {_words(step)}" for step in reversed(steps)),
        checks=() if steps else (f"this incident put nothing on {params.agent}'s users and roles",),
    )


def _capture(ctx: Context, params: AllowParams) -> Record:
    return {"steps": _put(ctx, params)}


def _apply(ctx: Context, params: AllowParams, captured: Record) -> Record:
    del params
    for step in reversed(captured["steps"]):
        action, given = _of(step)
        if action.revert is not None:
            action.revert(ctx, given, step["captured"])
    return {"taken_off": [_words(step) for step in reversed(captured["steps"])]}


def _verify(ctx: Context, params: AllowParams, captured: Record, _outcome: Record) -> Verification:
    """Gone, and nothing that the agent held is accepted for it: that would be the stolen one at work again."""
    seen = []
    for step in reversed(captured["steps"]):
        action, given = _of(step)
        if action.verify_reverted is None:
            continue
        gone = action.verify_reverted(ctx, given, step["captured"])
        old, missing = [], []
        for principal in step["captured"].get("uses", ()) if gone.verified else ():
            refused, proof, lacking = tried_refused(ctx, given, step["captured"], principal, because="")
            old += [] if refused else [f"WHAT THE AGENT HELD WORKS AGAIN: {proof}"]
            missing += [lacking] if lacking else []
        seen.append(
            (
                step,
                Verification(
                    verified=gone.verified and not old,
                    enforcement=enforcement(verified=gone.verified and not old, missing=tuple(missing)),
                    proof="; ".join([gone.proof, *old, *missing]),
                ),
            )
        )
    return _together(seen, f"this incident put nothing on {params.agent}'s users and roles")


def _revert(ctx: Context, params: AllowParams, captured: Record) -> None:
    del params
    for step in captured["steps"]:
        action, given = _of(step)
        action.apply(ctx, given, step["captured"])


def _verify_reverted(ctx: Context, params: AllowParams, captured: Record) -> Verification:
    del params
    seen = []
    for step in captured["steps"]:
        action, given = _of(step)
        seen.append((step, action.verify(ctx, given, step["captured"], step["outcome"])))
    return _together(seen, "there was nothing to put on again")


def _together(seen: list[tuple[Record, Verification]], nothing: str) -> Verification:
    verified = all(one.verified for _, one in seen)
    full = all(one.enforcement is Enforcement.FULL for _, one in seen)
    return Verification(
        verified=verified,
        enforcement=Enforcement.NONE if not verified else Enforcement.FULL if full else Enforcement.PARTIAL,
        proof="; ".join(f"{_words(step)}: {one.proof}" for step, one in seen) or nothing,
    )


ACTION: Action[AllowParams] = Action(
    id="aws.allow-principal",
    summary="Take off what this incident put on the agent's AWS user and role to deny it everything.",
    phase=Phase.RECOVER,
    reversibility=Reversibility.REVERSIBLE,
    needs=DENY.needs | BOUNDARY.needs | DETACH.needs,
    scope="what this incident put on one IAM user and one role",
    openc2="allow",
    params=AllowParams,
    key=lambda params: params.agent,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
