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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clawback.action import Action, Context, Params, Reversibility, Verification
from clawback.journal.approvals import Need
from clawback.model import ApprovalState, Enforcement, Phase, Receipt, ReceiptState
from clawback.playbook import Step
from clawback.response.acting import observed
from clawback.response.consent import needed
from clawback.response.guard import Outcome, guarded
from clawback.response.reverting import Reverting
from clawback.response.rules import destroys_evidence, evidence_is_held

__all__ = ["Response", "step_key"]

_BEGUN = frozenset({ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.UNVERIFIED})
_SHOWN_CHANGES = 140  # of the 200 lines that an approval keeps
_LEFT_ALONE = frozenset({ReceiptState.VERIFIED, ReceiptState.ACCEPTED})


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

    def reserve(self, steps: Sequence[Step], *, phase: Phase | None = None) -> tuple[Callable[[], Receipt], ...]:
        """Give steps their places in the journal; what is returned for each makes it, on any thread.

        So steps that are made side by side stand in the order in which they were reserved, on every run. One record
        holds them all, unless of one of them something else is to be written first.
        """
        context = self.context()
        found = [self._find(step.action, step.params, phase or step.action.phase, context) for step in steps]
        if steps and all(self._is_free(one, step.after) for one, step in zip(found, steps, strict=True)):
            with self.journal.together():
                return tuple(self._reserved(one) for one in found)
        return tuple(
            self._reserved(self._open(step.action, step.params, phase or step.action.phase, step.after))
            for step in steps
        )

    # ----------------------------------------------------------------------------------------------------------------

    def _open(self, action: Action[Any], params: Params, phase: Phase, after: tuple[Receipt, ...]) -> Receipt | Opened:
        """The step, or its receipt where there is nothing to do now."""
        step = self._find(action, params, phase, self.context())
        if isinstance(step, Opened) and (reason := self._must_not_start(step, after)):
            return self._not_started(step, reason)
        return step

    def _find(self, action: Action[Any], params: Params, phase: Phase, context: Context) -> Receipt | Opened:
        """What the journal knows of the step: its receipt where that says that there is nothing to do now."""
        key = step_key(action, params)
        known = next((receipt for receipt in context.incident.receipts if receipt.key == key), None)
        if known is not None and (known.state in _LEFT_ALONE or known.state.taken_back):
            return known  # by its key, as the action declares it: a reason worded otherwise is not another step
        return Opened(
            action=action,
            params=params,
            phase=phase,
            key=key,
            wanted=params.model_dump(mode="json"),
            context=context,
            known=known,
        )

    def _is_free(self, found: Receipt | Opened, after: tuple[Receipt, ...]) -> bool:
        """Nothing is to be written of it but its intent."""
        if isinstance(found, Receipt):
            return True
        return not _short_of(after) and not _lacks_evidence(found) and self._need(found) is None

    def _reserved(self, step: Receipt | Opened) -> Callable[[], Receipt]:
        if isinstance(step, Opened):
            waiting = self._consent(step)
            if waiting is not None:
                step = waiting
            elif step.known is None or step.known.state is not ReceiptState.APPLIED:
                step = replace(step, reserved=self._intend(step))
        if isinstance(step, Receipt):
            settled = step
            return lambda: settled
        opened = step
        return lambda: self._go_on(opened)

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
        if _is_seen_at_once(step):
            return self._seen_at_once(step, receipt, outcome.value or {})
        return self._verify(action, params, context, self.journal.applied(receipt, outcome.value or {}))

    def _seen_at_once(self, step: Opened, receipt: Receipt, outcome: Mapping[str, Any]) -> Receipt:
        """Looked at before it is written down as made: one flush where there would be two, in the time that counts. Cut
        off in between it is made again, and converges.
        """
        seen = self._look(step.action, step.params, step.context, receipt, outcome)
        if seen.value is not None and observed(seen.value):
            return self.journal.held(receipt, outcome, seen.value.proof, seen.value.enforcement)
        return self._judged(self.journal.applied(receipt, outcome), seen)

    def _intend(self, step: Opened, captured: Mapping[str, Any] | None = None) -> Receipt:
        if step.reserved is not None:
            return step.reserved if captured is None else self.journal.captured(step.reserved, captured)
        return self.journal.intend(
            step.context.incident, step.key, step.action.id, step.phase, step.wanted, self.actor, captured=captured
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

    def _must_not_start(self, step: Opened, after: tuple[Receipt, ...]) -> str:
        if short := _short_of(after):
            return f"not started: {', '.join(short)}"
        if _lacks_evidence(step):
            if not self._without_evidence:
                return "not started: no evidence has been collected yet"
            self.journal.note(
                self.incident_id,
                step.action.phase,
                f"{step.action.id} without evidence",
                f"{self.actor}: {self._without_evidence}",
            )
        return ""

    def _need(self, step: Opened) -> Need | None:
        """Whom the step needs consent from. What was begun under an approval that is spent is gone on with: it is the
        same making of the same step.
        """
        if self._approvals is None or (step.known is not None and step.known.state in _BEGUN):
            return None
        return needed(self._approvals, step.action, step.phase, step.context.incident)

    def _consent(self, step: Opened) -> Receipt | None:
        """None where the step may be made now; else its receipt, which says what it waits for or who denied it."""
        action, known, need = step.action, step.known, self._need(step)
        if need is None:
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


def _is_seen_at_once(step: Opened) -> bool:
    """Containment, and looking around before it: in a hurry, and harmless to do again."""
    if step.phase not in (Phase.IDENTIFY, Phase.CONTAIN):
        return False
    return step.action.phase is Phase.CONTAIN or step.action.reversibility is Reversibility.REVERSIBLE


def _short_of(after: tuple[Receipt, ...]) -> list[str]:
    return [f"{receipt.action} is {receipt.state.value}" for receipt in after if not _is_verified(receipt)]


def _lacks_evidence(step: Opened) -> bool:
    return destroys_evidence(step.action) and not evidence_is_held(step.context.incident)


def _is_verified(receipt: Receipt) -> bool:
    return receipt.state is ReceiptState.VERIFIED
