"""Drives one action at a time through the journal, so that a crash at any point leaves what can be gone on from.

| found in the journal    | then |
|---|---|
| nothing                 | capture, intend (with what was captured), apply, verify |
| intended                | the effect may have happened: apply again, it converges; what was captured first is kept |
| applied                 | verify; apply again only if the effect is not seen |
| verified                | adopted: nothing is done |
| awaiting                | a person has not said yes: asked once, made when granted, failed when denied |
| failed, unverified      | the next attempt, from what was captured first |
| reverted, being reverted | somebody undoes it: left alone |
| accepted                | a person lets it stand as it is: left alone |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clawback.action import Action, Context, Params, Reversibility, Verification
from clawback.journal import REVERTED
from clawback.model import ApprovalState, Enforcement, Phase, Receipt, ReceiptState
from clawback.response.acting import observed
from clawback.response.consent import needed
from clawback.response.guard import Outcome, guarded
from clawback.response.reverting import Reverting
from clawback.response.rules import destroys_evidence, evidence_is_held

__all__ = ["Response", "step_key"]

_BEGUN = frozenset({ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.UNVERIFIED})
_SHOWN_CHANGES = 140  # of the 200 lines that an approval keeps
_LEFT_ALONE = frozenset({ReceiptState.VERIFIED, ReceiptState.ACCEPTED})
_BEING_UNDONE = REVERTED | {ReceiptState.REVERT_PENDING, ReceiptState.REVERT_FAILED, ReceiptState.ORPHANED}


def step_key(action: Action[Any], params: Params) -> str:
    """The step's name within its incident: the action and what identifies these parameters."""
    return f"{action.id}:{action.key(params)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A step that may be made: as it was asked for, and what the journal knows of it. `reserved` is its new attempt,
    where that stands in the journal already.
    """

    action: Action[Any]
    params: Params
    phase: Phase
    key: str
    wanted: Mapping[str, Any]
    context: Context
    known: Receipt | None
    reserved: Receipt | None = None


class Response(Reverting):
    """One incident's way to act, and to undo what was done."""

    def execute(
        self, action: Action[Any], params: Params, *, phase: Phase | None = None, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Do it, or go on with it, or adopt that it is done; returns the receipt, whatever came of it."""
        opened = self._open(action, params, phase or action.phase, after)
        return opened if isinstance(opened, Receipt) else self._go_on(opened)

    def reserve(
        self, action: Action[Any], params: Params, *, phase: Phase | None = None, after: tuple[Receipt, ...] = ()
    ) -> Callable[[], Receipt]:
        """Give a step its place in the journal; what is returned makes it, on any thread.

        So steps that are made side by side stand in the order in which they were reserved, on every run.
        """
        opened = self._open(action, params, phase or action.phase, after)
        if isinstance(opened, Opened):
            waiting = self._consent(opened)
            if waiting is not None:
                opened = waiting
            elif opened.known is None or opened.known.state is not ReceiptState.APPLIED:
                opened = replace(opened, reserved=self._intend(opened))
        if isinstance(opened, Receipt):
            settled = opened
            return lambda: settled
        step = opened
        return lambda: self._go_on(step)

    # ----------------------------------------------------------------------------------------------------------------

    def _open(self, action: Action[Any], params: Params, phase: Phase, after: tuple[Receipt, ...]) -> Receipt | Opened:
        """What the journal knows of the step, and its receipt where that says that there is nothing to do now."""
        context, key = self.context(), step_key(action, params)
        known = next((receipt for receipt in context.incident.receipts if receipt.key == key), None)
        if known is not None and known.state in _LEFT_ALONE | _BEING_UNDONE:
            return known  # by its key, as the action declares it: a reason worded otherwise is not another step
        step = Opened(
            action=action,
            params=params,
            phase=phase,
            key=key,
            wanted=params.model_dump(mode="json"),
            context=context,
            known=known,
        )
        if reason := self._must_not_start(action, context, after):
            return self._not_started(step, reason)
        return step

    def _go_on(self, step: Opened) -> Receipt:
        action, params, context, known = step.action, step.params, step.context, step.known
        if known is not None and known.state is ReceiptState.APPLIED:
            receipt = self._verify(action, params, context, known)
            if receipt.state is not ReceiptState.UNVERIFIED:
                return receipt
            step = replace(step, known=receipt)
        if step.reserved is None and (waiting := self._consent(step)) is not None:
            return waiting
        captured: Outcome[Mapping[str, Any]] | None = None
        earlier = step.reserved or step.known
        if earlier is None or not earlier.captured_ns:
            # Reading changes nothing, so it comes before the intent: one durable write holds both.
            captured = guarded(f"{action.id} capture", lambda: dict(action.capture(context, params)))
            if not captured.ok:
                return self._fell_short(step.reserved or self._intend(step), captured)
        receipt = self._intend(step, captured.value if captured is not None else None)
        outcome = guarded(f"{action.id} apply", lambda: dict(action.apply(context, params, receipt.captured)))
        if not outcome.ok:
            return self._fell_short(receipt, outcome)
        if step.phase is Phase.CONTAIN and action.reversibility is Reversibility.REVERSIBLE:
            return self._seen_at_once(step, receipt, outcome.value or {})
        return self._verify(action, params, context, self.journal.applied(receipt.id, outcome.value or {}))

    def _seen_at_once(self, step: Opened, receipt: Receipt, outcome: Mapping[str, Any]) -> Receipt:
        """A containment is looked at before it is written down as made: one flush where there would be two, in the time
        that counts. Cut off in between it is made again, and converges.
        """
        seen = self._look(step.action, step.params, step.context, receipt, outcome)
        if seen.value is not None and observed(seen.value):
            return self.journal.held(receipt.id, outcome, seen.value.proof, seen.value.enforcement)
        return self._judged(self.journal.applied(receipt.id, outcome), seen)

    def _intend(self, step: Opened, captured: Mapping[str, Any] | None = None) -> Receipt:
        if step.reserved is not None:
            return step.reserved if captured is None else self.journal.captured(step.reserved.id, captured)
        return self.journal.intend(
            self.incident_id, step.key, step.action.id, step.phase, step.wanted, self.actor, captured=captured
        )

    def _verify(self, action: Action[Any], params: Params, context: Context, receipt: Receipt) -> Receipt:
        return self._judged(receipt, self._look(action, params, context, receipt, receipt.outcome))

    @staticmethod
    def _look(
        action: Action[Any], params: Params, context: Context, receipt: Receipt, outcome: Mapping[str, Any]
    ) -> Outcome[Verification]:
        return guarded(f"{action.id} verify", lambda: action.verify(context, params, receipt.captured, outcome))

    def _judged(self, receipt: Receipt, seen: Outcome[Verification]) -> Receipt:
        """Of a step that was applied: what looking at it came to."""
        if seen.value is None:
            return self._fell_short(receipt, seen)
        if observed(seen.value):
            return self.journal.verified(receipt.id, seen.value.proof, seen.value.enforcement)
        proof = seen.value.proof or "the check gave no proof"
        return self.journal.unverified(receipt.id, proof, seen.value.enforcement)

    def _fell_short(self, receipt: Receipt, outcome: Outcome[Any]) -> Receipt:
        if outcome.away:
            return self.journal.pending(receipt.id, outcome.error)
        if receipt.state is ReceiptState.APPLIED and not outcome.ok:
            # It was done and its effect could not be looked at: that is less than failed and more than nothing.
            return self.journal.unverified(receipt.id, outcome.error, Enforcement.NONE)
        return self.journal.failed(receipt.id, outcome.error)

    def _must_not_start(self, action: Action[Any], context: Context, after: tuple[Receipt, ...]) -> str:
        short = [f"{receipt.action} is {receipt.state.value}" for receipt in after if not _is_verified(receipt)]
        if short:
            return f"not started: {', '.join(short)}"
        if destroys_evidence(action) and not evidence_is_held(context.incident):
            if not self._without_evidence:
                return "not started: no evidence has been collected yet"
            self.journal.note(
                self.incident_id,
                action.phase,
                f"{action.id} without evidence",
                f"{self.actor}: {self._without_evidence}",
            )
        return ""

    def _consent(self, step: Opened) -> Receipt | None:
        """None where the step may be made now; else its receipt, which says what it waits for or who denied it.

        What was begun under an approval that is spent is gone on with: it is the same making of the same step.
        """
        action, known = step.action, step.known
        need = None if self._approvals is None else needed(self._approvals, action, step.phase, step.context.incident)
        if need is None or (known is not None and known.state in _BEGUN):
            return None
        shown = self._shown(action, step.params)
        asked = self.journal.ask(
            self.incident_id, step.key, action.id, step.phase, step.wanted, need, shown=shown, actor=self.actor
        )
        if asked.state is ApprovalState.GRANTED:
            self.journal.use(asked.id, self.actor)
            return None
        if asked.state is ApprovalState.PENDING:
            why = f"awaits {asked.id}"
            if known is not None and known.state is ReceiptState.AWAITING and known.error == why:
                return known
            return self.journal.awaiting(
                self.incident_id, step.key, action.id, step.phase, step.wanted, self.actor, why
            )
        votes = [f"{vote.who}: {vote.reason}" for vote in asked.votes if not vote.grant]
        return self._not_started(
            step, f"not started: {asked.id} {asked.state.value}{' by ' + votes[0] if votes else ''}"
        )

    def _shown(self, action: Action[Any], params: Params) -> tuple[str, ...]:
        planned = guarded(f"{action.id} plan", lambda: self.plan(action, params))
        if planned.value is None:
            return (f"what it would change could not be read: {planned.error}",)
        changes, checks = planned.value.changes, planned.value.checks
        more = (f"… and {len(changes) - _SHOWN_CHANGES} more lines",) if len(changes) > _SHOWN_CHANGES else ()
        # However long a change is made, what was found wrong with it is shown.
        return (*changes[:_SHOWN_CHANGES], *more, *(f"  {check}" for check in checks))

    def _not_started(self, step: Opened, reason: str) -> Receipt:
        known = step.known
        if known is not None and known.state in _BEGUN:
            return self.journal.pending(known.id, reason)  # an earlier attempt may have had its effect: not "failed"
        if known is not None and known.state is ReceiptState.FAILED and known.error == reason:
            return known
        if known is not None and known.state is ReceiptState.AWAITING:
            return self.journal.failed(known.id, reason)
        return self.journal.failed(self._intend(step).id, reason)


def _is_verified(receipt: Receipt) -> bool:
    return receipt.state is ReceiptState.VERIFIED
