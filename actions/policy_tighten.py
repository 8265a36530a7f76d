"""Make the policy narrower by what the incident showed: rogue calls are denied by name, rules shrink to their use.

Use is what every agent under the policy was seen to do, and was let do, before the incident. The text is edited where
it must be and otherwise stays as it was written. A text that would still allow a rogue call is not put in force; calls
of use that it denies are named, for the person who says yes to it. Marked known-good: that yes is the review.
"""

from __future__ import annotations

from hashlib import sha256

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._policy_away import still_away
from clawback.actions._rogue import rogue_calls
from clawback.actions._stages import diff_of, of_use
from clawback.errors import Refused
from clawback.model import Attempt, Draft, Enforcement, Narrowing, Phase
from clawback.reports.escape import plain

__all__ = ["ACTION", "Proposal", "TightenParams", "proposal"]

_MOST_DENIED = 256
_MOST_NAMED = 20


class TightenParams(Params):
    """`drop` takes out rules that nothing of use went by, too; else those stay as they are.

    expected   SHA-256 of the text that was shown to whoever said yes; no other is put in force. Empty: whichever
    """

    policy: str = Field(min_length=1, max_length=128)
    reason: str = Field(min_length=1, max_length=500)
    drop: bool = False
    expected: str = Field("", max_length=64)


class Proposal:
    """A draft, and what of the calls it was made from it denies and allows."""

    def __init__(self, draft: Draft, bad: tuple[Attempt, ...], use: tuple[Attempt, ...], before: Draft) -> None:
        self.draft = draft
        said = [one.allowed for one in draft.decisions]
        was = [one.allowed for one in before.decisions]
        self.still_open = [call for call, allowed in zip(bad, said[: len(bad)], strict=True) if allowed]
        self.lost = [
            call
            for call, allowed, had in zip(use, said[len(bad) :], was[len(bad) :], strict=True)
            if had and not allowed
        ]
        self.kept = sum(said[len(bad) :])
        self.denied = len(bad) - len(self.still_open)


def proposal(ctx: Context, policy: str, version: int, *, drop: bool = False) -> tuple[Proposal, bool]:
    """The narrower text, and whether all of the time that is looked back on could be read."""
    rogue = rogue_calls(ctx.incident)[:_MOST_DENIED]
    bad = tuple(call for call in rogue if call.kind in ("http", "connect"))
    use, complete = of_use(ctx, policy=policy)
    policies, attempts = ctx.world.policies, (*bad, *use)
    narrowing = Narrowing(deny=rogue, keep=use or None, drop=drop)
    before = policies.draft(policy, version, Narrowing(), attempts=attempts)
    return Proposal(policies.draft(policy, version, narrowing, attempts=attempts), bad, use, before), complete


def _named(calls: list[Attempt]) -> str:
    more = f" and {len(calls) - _MOST_NAMED} more" if len(calls) > _MOST_NAMED else ""
    return ", ".join(f"{call.kind} {plain(call.target, 120)}" for call in calls[:_MOST_NAMED]) + more


def _plan(ctx: Context, params: TightenParams) -> Plan:
    version = ctx.world.policies.active(params.policy).version
    made, complete = proposal(ctx, params.policy, version, drop=params.drop)
    checks = [f"{made.denied} rogue calls denied, {made.kept} calls of use allowed"]
    if made.still_open:
        checks.append(f"REFUSED: it would still allow {_named(made.still_open)}")
    if made.lost:
        checks.append(f"calls of use that it denies: {_named(made.lost)}")
    if not complete:
        checks.append("the telemetry does not go back as far as was asked: there may be use that is not known")
    checks += [f"has no form in this policy: {plain(one, 200)}" for one in made.draft.left[:_MOST_NAMED]]
    return Plan(changes=diff_of(made.draft), checks=tuple(checks))


def _capture(ctx: Context, params: TightenParams) -> Record:
    active = ctx.world.policies.active(params.policy)
    return {"version": active.version, "sha256": active.sha256}


def _apply(ctx: Context, params: TightenParams, captured: Record) -> Record:
    made, complete = proposal(ctx, params.policy, captured["version"], drop=params.drop)
    active = ctx.world.policies.active(params.policy)
    if params.expected not in ("", made.draft.sha256, active.sha256):
        raise Refused(
            f"policy {params.policy} is not changed: the narrower text is not the one that was shown any more",
            hint="findings or telemetry have come since: look at it again",
        )
    if made.still_open:
        raise Refused(
            f"policy {params.policy} is not changed: the narrower text would still allow {_named(made.still_open)}",
            hint="take out by hand what allows it",
        )
    if sha256(ctx.world.policies.read(params.policy, captured["version"]).encode()).hexdigest() != captured["sha256"]:
        raise Refused(f"the text of {params.policy} version {captured['version']} is not the one that was recorded")
    done = params.expected == active.sha256
    text = ctx.world.policies.read(params.policy, active.version) if done else made.draft.text
    new = ctx.world.policies.put(
        params.policy,
        text,
        author=ctx.actor,
        reason=f"tightened: {params.reason}"[:500],
        known_good=True,
        incident=ctx.incident.id,
    )
    return {
        "version": new.version,
        "sha256": sha256(text.encode()).hexdigest(),  # its own, whatever was answered
        "changes": [plain(one, 200) for one in made.draft.changes[:_MOST_NAMED]],
        "lost": [f"{call.kind} {plain(call.target, 120)}" for call in made.lost[:_MOST_NAMED]],
        "use": made.kept,
        "complete": complete,
    }


def _verify(ctx: Context, params: TightenParams, _captured: Record, outcome: Record) -> Verification:
    """By the text that decides, asked about each rogue call again: findings may have joined since."""
    policies = ctx.world.policies
    active = policies.active(params.policy)
    text = sha256(policies.read(params.policy, active.version).encode()).hexdigest()
    wrong = []
    if not active.sha256 == outcome["sha256"] == text:
        wrong.append(f"the engine decides by version {active.version} ({text[:12]}), not {outcome['version']}")
    bad = tuple(call for call in rogue_calls(ctx.incident) if call.kind in ("http", "connect"))[:_MOST_DENIED]
    # The draft asks for every program that a rule names; what decides is asked too, whatever it drafts.
    drafted = policies.draft(params.policy, active.version, Narrowing(), attempts=bad).decisions
    if still := [
        call
        for call, said in zip(bad, drafted, strict=True)
        if said.allowed or policies.decide(params.policy, call).allowed
    ]:
        wrong.append(f"version {active.version} allows {_named(still)}")
    lost = f"; no longer allowed, and of use before: {', '.join(outcome['lost'])}" if outcome["lost"] else ""
    return Verification(
        verified=not wrong,
        enforcement=Enforcement.NONE if wrong else Enforcement.FULL if outcome["complete"] else Enforcement.PARTIAL,
        proof="; ".join(wrong)
        or f"version {active.version} decides and denies {len(bad)} rogue calls; {outcome['use']} calls of use allowed"
        f"{lost}; {'; '.join(outcome['changes']) or 'nothing was to be changed'}",
    )


def _recheck(ctx: Context, params: TightenParams, captured: Record, outcome: Record) -> Verification | None:
    """Whether the text from before decides again; a newer policy is its author's business."""
    if outcome["sha256"] == captured["sha256"]:
        return None
    return still_away(ctx, params.policy, captured, "was too wide")


def _revert(ctx: Context, params: TightenParams, captured: Record) -> None:
    ctx.world.policies.restore(
        params.policy,
        captured["version"],
        author=ctx.actor,
        reason=f"revert of {ctx.incident.id}: {params.reason}"[:500],
        incident=ctx.incident.id,
    )


def _verify_reverted(ctx: Context, params: TightenParams, captured: Record) -> Verification:
    active = ctx.world.policies.active(params.policy)
    text = sha256(ctx.world.policies.read(params.policy, active.version).encode()).hexdigest()
    same = active.sha256 == captured["sha256"] == text
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if same else Enforcement.NONE,
        proof=f"the engine decides by version {active.version} ({text[:12]}); version {captured['version']}, as it was "
        f"before, is {captured['sha256'][:12]}",
    )


ACTION = Action(
    id="policy.tighten",
    summary="Deny the rogue calls by name, and let the policy's rules shrink to their use.",
    phase=Phase.ERADICATE,
    reversibility=Reversibility.REVERSIBLE,
    needs=frozenset(
        {"policies:draft", "policies:put", "policies:restore", "policies:active", "policies:decide", "telemetry:read"}
    ),
    scope="one policy, and thereby every agent that runs under it; it never allows more than before",
    openc2="deny",
    d3fend="D3-OTF",
    consent=True,
    params=TightenParams,
    key=lambda params: f"{params.policy}:{params.drop}:{params.expected[:16]}",
    plan=_plan,
    capture=_capture,
    apply=_apply,
    verify=_verify,
    recheck=_recheck,
    revert=_revert,
    verify_reverted=_verify_reverted,
)
