"""Review what a frozen agent was told and what it tried: is it steered by somebody else, or is its policy too tight?

What it tried decides, or a person does. Words in its output that look like smuggled instructions are shown and decide
nothing: they are easily written, and easily avoided.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._ladder import hold_levels, released, seen
from clawback.actions._reading import nothing_reverted, revert_nothing
from clawback.actions._recorded import amiss, began_ns, cut, read, top, until_now
from clawback.model import (
    Enforcement,
    Event,
    FileActivity,
    HttpActivity,
    Incident,
    KernelActivity,
    Level,
    NetworkActivity,
    Phase,
    ReceiptState,
    Source,
)

__all__ = ["ACTION", "InstructionsParams"]

KINDS = 2  # files, system calls, destinations: a policy that is too tight shows in one of them
TARGETS = 10  # different things refused: a program retries one thing, a search tries many
_READ = 1 << 20
_SMUGGLED = re.compile(
    r"ignore (?:all |any |the )?(?:previous|prior|above|earlier) (?:instructions|prompts?)|disregard (?:all|the|your)"
    r"|new (?:system )?instructions?:|you are now (?:an?|the) |do not (?:tell|inform|alert) (?:the )?(?:user|operator)"
    r"|<\|?(?:im_start|system)\|?>|\[/?INST\]",
    re.IGNORECASE,
)


class InstructionsParams(Params):
    """The agent and its instance. `findings`: more of them want another look."""

    agent: str = Field(min_length=1, max_length=128)
    instance: str = Field("", max_length=128)
    findings: int = Field(0, ge=0)


def _events(ctx: Context, params: InstructionsParams, until_ns: int) -> list[Event]:
    """What it was refused."""
    who = {"agent": params.agent, "instance": params.instance}
    streams = (read(ctx, x, began_ns(ctx), until_ns=until_ns, **who) for x in (Source.SANDBOX, Source.POLICY))
    return [event for stream in streams for event in stream.events if event.blocked]


def _refused(events: list[Event]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        if isinstance(event, FileActivity):
            found["file", cut(event.path)] += 1
        elif isinstance(event, KernelActivity):
            found["system call", cut(event.syscall)] += 1
        elif isinstance(event, (HttpActivity, NetworkActivity)):
            found["destination", cut(f"{event.host}:{event.port}")] += 1
    return found


def _hints(incident: Incident) -> list[str]:
    """What in the collected output and transcripts looks like smuggled instructions: each once, cut."""
    folders = [
        str(x.outcome.get("folder", ""))
        for x in incident.receipts
        if x.action == "evidence.collect" and x.state is ReceiptState.VERIFIED
    ]
    path = Path(folders[-1]) / "output.log" if folders and folders[-1] else None
    try:
        text = path.read_bytes()[-_READ:].decode("utf-8", "replace") if path and not path.is_symlink() else ""
    except OSError:
        text = ""
    told = [str(prompt) for x in incident.receipts for prompt in x.outcome.get("prompts", ())]
    lines = (line.strip() for line in (*text.splitlines(), *told) if _SMUGGLED.search(line))
    return list(dict.fromkeys(cut(line) for line in lines))[:10]


def _review(ctx: Context, params: InstructionsParams, until_ns: int, events: list[Event]) -> dict[str, Any]:
    refused = _refused(events)
    kinds = {kind for kind, _ in refused}
    others = sorted({x.detector for x in ctx.incident.findings} - {"sandbox.violation-spike"})
    reasons = [f"{name} found something too" for name in others]
    if len(kinds) >= KINDS and len(refused) >= TARGETS:
        reasons.append(f"{len(refused)} different things of {len(kinds)} kinds were refused: it searches")
    info = ctx.world.core.agent(params.agent)
    person = _person(ctx, params)
    return {
        "until_ns": until_ns,
        "events": len(events),
        "confirmed": bool(reasons) or person == "confirmed",
        "decided": bool(reasons) or bool(person),
        "reasons": reasons,
        "person": person,
        "instructions": cut(" ".join(info.command)),
        "hints": _hints(ctx.incident),
        "refused": top(f"{kind} {target}" for (kind, target), count in refused.items() for _ in range(min(count, 100))),
        "kinds": sorted(kinds),
        "different": len(refused),
    }


def _person(ctx: Context, params: InstructionsParams) -> str:
    """What somebody has decided by acting: isolating it by hand is a yes, releasing what this incident froze a no.

    Either is read back, and of the instance that is meant: an agent that nobody froze has not been let go.
    """
    core = ctx.world.core
    info = core.agent(params.agent)
    if info.agent != params.agent or params.instance not in ("", info.instance):
        return ""
    by_hand = [one for one in (info.hold.orders if info.hold else ()) if one.incident != ctx.incident.id]
    if any(max(one.levels) >= Level.ISOLATE for one in by_hand):
        return "confirmed" if seen(core.probe(params.agent, Level.ISOLATE), Enforcement.PARTIAL) else ""
    frozen = any(x.action == "agent.freeze" and x.verified_ns for x in ctx.incident.receipts)
    if not frozen or Level.FREEZE in hold_levels(info):
        return ""
    return "harmless" if released(ctx, params.agent, Level.FREEZE).verified else ""


def _apply(ctx: Context, params: InstructionsParams, _captured: Record) -> Record:
    until = until_now()
    return _review(ctx, params, until, _events(ctx, params, until))


def _verify(ctx: Context, params: InstructionsParams, _captured: Record, outcome: Record) -> Verification:
    """Looked at again, it comes to the same."""
    until = int(outcome["until_ns"])
    events = _events(ctx, params, until)
    again, wrong = _review(ctx, params, until, events), amiss(int(outcome["events"]), events, until)
    same = all(again[key] == outcome[key] for key in ("decided", "confirmed", "person"))
    decided = bool(outcome["decided"]) and same and not wrong
    verdict = "injection or misuse confirmed" if outcome["confirmed"] else "harmless, says a person"
    why = "; ".join(outcome["reasons"]) or f"by hand: {outcome['person']}"
    shown = f"{wrong}; " if wrong else ""
    shown += f"{outcome['different']} different things of {len(outcome['kinds'])} kinds refused, "
    shown += f"{len(outcome['hints'])} lines of output that look like smuggled instructions"
    return Verification(
        verified=decided,
        enforcement=Enforcement.FULL if decided else Enforcement.PARTIAL,
        proof=f"{verdict} ({why}); {shown}"
        if decided
        else f"undecided: {shown}; the agent stays frozen. `clawback contain {params.agent} --level isolate` confirms, "
        f"`clawback release {params.agent}` says it was harmless; then `clawback resume`",
    )


ACTION = Action(
    id="instructions.review",
    summary="Decide from what it tried whether the agent is steered by somebody else, or have a person decide.",
    phase=Phase.IDENTIFY,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset({"core:agent", "telemetry:read", "evidence:read"}),
    scope="reads only",
    openc2="investigate",
    params=InstructionsParams,
    key=lambda params: f"{params.agent}:{params.instance}:{params.findings}",
    plan=lambda _ctx, params: Plan(changes=(), checks=(f"reads what {params.agent} was refused, and its output",)),
    capture=lambda _ctx, _params: {},
    apply=_apply,
    verify=_verify,
    revert=revert_nothing,
    verify_reverted=nothing_reverted,
)
