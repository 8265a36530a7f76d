"""Destroy the replaced values of an agent's credentials, once the proofs that they are refused have been made.

It refuses while this incident still has a step on one of the agent's credentials whose proof is outstanding: that proof
may need the value.
"""

from __future__ import annotations

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.errors import Refused
from clawback.model import Enforcement, Phase, Receipt, ReceiptState

__all__ = ["ACTION", "DiscardParams"]

_DONE = (ReceiptState.VERIFIED, ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT)


class DiscardParams(Params):
    """Whose old values."""

    agent: str


def _names(ctx: Context, agent: str) -> list[str]:
    store = ctx.world.secrets
    return [ref.name for ref in store.refs(agent) if store.old(agent, ref.name) is not None]


def _outstanding(ctx: Context, agent: str) -> list[str]:
    return [
        f"{receipt.action} {receipt.params.get('name', '')} is {receipt.state}"
        for receipt in ctx.incident.receipts
        if receipt.params.get("agent") == agent and receipt.state not in _DONE and _is_on_a_credential(receipt)
    ]


def _is_on_a_credential(receipt: Receipt) -> bool:
    return bool(receipt.params.get("name")) or (
        receipt.action.startswith("credential.") and receipt.action != ACTION.id
    )


def _plan(ctx: Context, params: DiscardParams) -> Plan:
    return Plan(
        changes=tuple(f"- {params.agent}/{name}: the value before" for name in _names(ctx, params.agent)),
        checks=tuple(_outstanding(ctx, params.agent)),
    )


def _capture(ctx: Context, params: DiscardParams) -> Record:
    return {"names": _names(ctx, params.agent)}


def _apply(ctx: Context, params: DiscardParams, captured: Record) -> Record:
    if outstanding := _outstanding(ctx, params.agent):
        raise Refused(
            f"{params.agent}'s old values are kept, their proofs are outstanding: {'; '.join(outstanding)}",
            hint="`clawback resume` completes them",
        )
    for name in captured["names"]:
        ctx.world.secrets.discard(params.agent, name)
    return {"names": list(captured["names"])}


def _verify(ctx: Context, params: DiscardParams, captured: Record, outcome: Record) -> Verification:
    del captured
    left = [name for name in outcome["names"] if ctx.world.secrets.old(params.agent, name) is not None]
    return Verification(
        verified=not left,
        enforcement=Enforcement.NONE if left else Enforcement.FULL,
        proof=f"still there: {', '.join(left)}"
        if left
        else f"{len(outcome['names'])} old values are gone from the store",
    )


ACTION: Action[DiscardParams] = Action(
    id="credential.discard-old",
    summary="Destroy the replaced values of the agent's credentials.",
    phase=Phase.POST_INCIDENT,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"secrets:discard"}),
    scope="values that are refused everywhere already",
    openc2="delete",
    d3fend="D3-CR",
    params=DiscardParams,
    key=lambda params: params.agent,
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
