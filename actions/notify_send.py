"""Tell people: a short, redacted message about the incident to each configured channel.

A channel's documented answer is the proof that it took the message; who reads it, and when, is not seen. A message is
delivered at least once: after a crash at the wrong moment twice, under the same key. What was said cannot be unsaid.
"""

from __future__ import annotations

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.errors import InvalidInput, Unreachable
from clawback.model import Enforcement, Phase
from clawback.reports.notice import notice, render, text
from clawback.world.notices import Outcome

__all__ = ["ACTION", "NotifyParams"]


class NotifyParams(Params):
    """`stage`: the point of the response; `channels`: names, none for all; `over`: end what the first message began."""

    stage: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    revision: int = Field(0, ge=0)
    channels: tuple[str, ...] = ()
    over: bool = False


def _channels(ctx: Context, params: NotifyParams) -> dict[str, str]:
    """Name → kind of those to send to."""
    notifier = ctx.world.notifier_or_none
    there = dict(notifier.channels()) if notifier else {}
    if unknown := [name for name in params.channels if name not in there]:
        raise InvalidInput(
            f"no channel {', '.join(map(ascii, unknown))} is configured",
            hint=f"notify.channels has {', '.join(there) or 'none'}",
        )
    return {name: kind for name, kind in there.items() if name in params.channels or not params.channels}


def _plan(ctx: Context, params: NotifyParams) -> Plan:
    said = render(notice(ctx.incident, over=params.over), text).splitlines()
    return Plan(
        changes=tuple(f"+ message to {name} ({kind})" for name, kind in _channels(ctx, params).items()),
        checks=tuple(f"it says: {line}" for line in said),
    )


def _capture(ctx: Context, params: NotifyParams) -> Record:
    return {"channels": _channels(ctx, params)}


def _apply(ctx: Context, params: NotifyParams, captured: Record) -> Record:
    notifier, names = ctx.world.notifier_or_none, tuple(captured["channels"])
    if notifier is None or not names:
        return {"answers": {}}
    key = f"{ctx.incident.id}/{params.stage}/{params.revision}{'/over' if params.over else ''}"
    done = notifier.send(notice(ctx.incident, over=params.over), key=key, channels=names)
    if silent := [f"{name}: {done[name].answer}" for name in names if done[name].outcome is Outcome.SILENT]:
        raise Unreachable(
            f"not delivered: {'; '.join(silent)}", hint="`clawback resume` sends to these again, and to no other"
        )
    return {"answers": {name: [done[name].outcome.value, done[name].answer] for name in names}}


def _verify(ctx: Context, params: NotifyParams, captured: Record, outcome: Record) -> Verification:
    del ctx, params
    answers = outcome["answers"]
    if not captured["channels"]:
        return Verification(
            verified=True, enforcement=Enforcement.NONE, proof="no channel is configured: nobody was told"
        )
    good = [name for name in captured["channels"] if answers.get(name, [""])[0] == Outcome.DELIVERED.value]
    told = [f"delivered to {name}: {answers[name][1]}" for name in good]
    wrong = [
        f"NOT delivered to {name}: {answers[name][1] if name in answers else 'it was not sent'}"
        for name in captured["channels"]
        if name not in good
    ]
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.FULL if not wrong else Enforcement.PARTIAL if good else Enforcement.NONE,
        proof="; ".join([*told, *wrong]),
    )


ACTION = Action(
    id="notify.send",
    summary="Send a short message about the incident to the configured channels.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.IRREVERSIBLE,
    needs=frozenset({"notify:send"}),
    scope="one message to each configured channel",
    openc2="create",
    params=NotifyParams,
    key=lambda params: f"{params.stage}:{params.revision}{':over' if params.over else ''}:{','.join(params.channels)}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
)
