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
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clawback.action import Action, Context, Params, Plan, Reversibility, Verification
from clawback.config import ApprovalSettings
from clawback.errors import NotFound, Refused
from clawback.journal import REVERTED, Journal
from clawback.model import ApprovalState, Enforcement, Phase, Receipt, ReceiptState
from clawback.response.consent import needed
from clawback.response.guard import Outcome, guarded
from clawback.response.rules import destroys_evidence, evidence_is_held
from clawback.world import World

__all__ = ["Response", "step_key"]

_BEGUN = frozenset({ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.UNVERIFIED})
_BEING_UNDONE = REVERTED | {ReceiptState.REVERT_PENDING, ReceiptState.REVERT_FAILED, ReceiptState.ORPHANED}


def step_key(action: Action[Any], params: Params) -> str:
    """The step's name within its incident: the action and what identifies these parameters."""
    return f"{action.id}:{action.key(params)}"


class Response:
    """One incident's way to act. `actor` stands on every receipt.

    `actions` finds an action by id, for reverting (the catalogue's where none is given). `without_evidence` is the
    logged reason of somebody who lets credentials be rotated and processes be killed before evidence was collected.
    `approvals` are the rules by which steps wait for a person; none: no step does.
    """

    def __init__(
        self,
        journal: Journal,
        world: World,
        actor: str,
        incident_id: str,
        *,
        actions: Mapping[str, Action[Any]] | None = None,
        without_evidence: str = "",
        approvals: ApprovalSettings | None = None,
    ) -> None:
        self.journal = journal
        self.world = world
        self.actor = actor
        self.incident_id = incident_id
        self._actions = actions
        self._without_evidence = without_evidence
        self._approvals = approvals

    def plan(self, action: Action[Any], params: Params) -> Plan:
        """A dry run: reads the world, touches neither it nor the journal. Raises what the action raises."""
        return action.plan(self._context(), params)

    def execute(
        self, action: Action[Any], params: Params, *, phase: Phase | None = None, after: tuple[Receipt, ...] = ()
    ) -> Receipt:
        """Do it, or go on with it, or adopt that it is done; returns the receipt, whatever came of it."""
        phase, key, wanted = phase or action.phase, step_key(action, params), params.model_dump(mode="json")
        context = self._context()
        known = next((receipt for receipt in context.incident.receipts if receipt.key == key), None)
        if known is not None and known.state in _BEING_UNDONE:
            return known
        if known is not None and known.state is ReceiptState.VERIFIED:
            return known  # by its key, as the action declares it: a reason worded otherwise is not another step
        if reason := self._must_not_start(action, context, after):
            return self._not_started(known, key, action, phase, wanted, reason)
        if known is not None and known.state is ReceiptState.APPLIED:
            receipt = self._verify(action, params, context, known)
            if receipt.state is not ReceiptState.UNVERIFIED:
                return receipt
            known = receipt
        if (waiting := self._consent(action, params, context, known, key, phase, wanted)) is not None:
            return waiting
        captured: Outcome[Mapping[str, Any]] | None = None
        if known is None or not known.captured_ns:
            # Reading changes nothing, so it comes before the intent: one durable write holds both.
            captured = guarded(f"{action.id} capture", lambda: dict(action.capture(context, params)))
            if not captured.ok:
                receipt = self.journal.intend(self.incident_id, key, action.id, phase, wanted, self.actor)
                return self._fell_short(receipt, captured)
        receipt = self.journal.intend(
            self.incident_id,
            key,
            action.id,
            phase,
            wanted,
            self.actor,
            captured=captured.value if captured is not None else None,
        )
        outcome = guarded(f"{action.id} apply", lambda: dict(action.apply(context, params, receipt.captured)))
        if not outcome.ok:
            return self._fell_short(receipt, outcome)
        return self._verify(action, params, context, self.journal.applied(receipt.id, outcome.value or {}))

    def revert(self, receipt: Receipt) -> Receipt:
        """Undo a step from its record alone, and observe that it is undone. `Refused` for what cannot be undone."""
        action = self.action(receipt.action)
        if action.revert is None or action.verify_reverted is None:
            raise Refused(f"{action.id} is {Reversibility.IRREVERSIBLE.value}", hint=action.summary)
        revert, verify_reverted = action.revert, action.verify_reverted
        current = self._current(receipt)
        if current.state in REVERTED:
            return current
        params = action.params.model_validate(current.params)
        context = self._context()
        current = self.journal.revert_pending(current.id)
        if not current.captured_ns:
            return self.journal.already_absent(current.id, "apply was never started")
        captured = current.captured
        # An earlier revert may have been cut off after its effect; then there is nothing left to do.
        before = guarded(f"{action.id} verify_reverted", lambda: verify_reverted(context, params, captured))
        if before.value is not None and _seen(before.value):
            return self.journal.already_absent(current.id, before.value.proof)
        done = guarded(f"{action.id} revert", lambda: revert(context, params, captured))
        if not done.ok:
            return self._revert_fell_short(current, done)
        seen = guarded(f"{action.id} verify_reverted", lambda: verify_reverted(context, params, captured))
        if seen.value is None:
            return self._revert_fell_short(current, seen)
        if not _seen(seen.value):
            return self.journal.revert_failed(current.id, f"not observed: {seen.value.proof}")
        return self.journal.reverted(current.id, seen.value.proof)

    def action(self, name: str) -> Action[Any]:
        """The action of this id. `NotFound` for one that is in no catalogue."""
        actions = self._actions
        if actions is None:
            from clawback.catalog import load  # walks the folders; only reverting needs it

            actions = self._actions = load().actions
        if name not in actions:
            raise NotFound(f"no action {name[:80]!a} in the catalogue", hint="`clawback catalog` lists them")
        return actions[name]

    # ----------------------------------------------------------------------------------------------------------------

    def _verify(self, action: Action[Any], params: Params, context: Context, receipt: Receipt) -> Receipt:
        seen: Outcome[Verification] = guarded(
            f"{action.id} verify", lambda: action.verify(context, params, receipt.captured, receipt.outcome)
        )
        if seen.value is None:
            return self._fell_short(receipt, seen)
        if _seen(seen.value):
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

    def _revert_fell_short(self, receipt: Receipt, outcome: Outcome[Any]) -> Receipt:
        if outcome.away:
            return self.journal.pending(receipt.id, outcome.error)
        if outcome.gone:
            return self.journal.orphaned(receipt.id, outcome.error)
        return self.journal.revert_failed(receipt.id, outcome.error)

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

    def _consent(
        self,
        action: Action[Any],
        params: Params,
        context: Context,
        known: Receipt | None,
        key: str,
        phase: Phase,
        wanted: Mapping[str, Any],
    ) -> Receipt | None:
        """None where the step may be made now; else its receipt, which says what it waits for or who denied it.

        What was begun under an approval that is spent is gone on with: it is the same making of the same step.
        """
        need = None if self._approvals is None else needed(self._approvals, action, phase, context.incident)
        if need is None or (known is not None and known.state in _BEGUN):
            return None
        asked = self.journal.ask(
            self.incident_id, key, action.id, phase, wanted, need, shown=self._shown(action, params), actor=self.actor
        )
        if asked.state is ApprovalState.GRANTED:
            self.journal.use(asked.id, self.actor)
            return None
        if asked.state is ApprovalState.PENDING:
            why = f"awaits {asked.id}"
            if known is not None and known.state is ReceiptState.AWAITING and known.error == why:
                return known
            return self.journal.awaiting(self.incident_id, key, action.id, phase, wanted, self.actor, why)
        votes = [f"{vote.who}: {vote.reason}" for vote in asked.votes if not vote.grant]
        reason = f"not started: {asked.id} {asked.state.value}{' by ' + votes[0] if votes else ''}"
        return self._not_started(known, key, action, phase, wanted, reason)

    def _shown(self, action: Action[Any], params: Params) -> tuple[str, ...]:
        planned = guarded(f"{action.id} plan", lambda: self.plan(action, params))
        if planned.value is None:
            return (f"what it would change could not be read: {planned.error}",)
        return (*planned.value.changes, *(f"  {check}" for check in planned.value.checks))

    def _not_started(
        self, known: Receipt | None, key: str, action: Action[Any], phase: Phase, params: Mapping[str, Any], reason: str
    ) -> Receipt:
        if known is not None and known.state in {ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.UNVERIFIED}:
            return self.journal.pending(known.id, reason)  # an earlier attempt may have had its effect: not "failed"
        if known is not None and known.state is ReceiptState.FAILED and known.error == reason:
            return known
        if known is not None and known.state is ReceiptState.AWAITING:
            return self.journal.failed(known.id, reason)
        receipt = self.journal.intend(self.incident_id, key, action.id, phase, params, self.actor)
        return self.journal.failed(receipt.id, reason)

    def _context(self) -> Context:
        return Context(incident=self.journal.incident(self.incident_id), world=self.world, actor=self.actor)

    def _current(self, receipt: Receipt) -> Receipt:
        for current in self.journal.incident(self.incident_id).receipts:
            if current.id == receipt.id:
                return current
        raise NotFound(f"receipt {receipt.id} is not of {self.incident_id}")


def _is_verified(receipt: Receipt) -> bool:
    return receipt.state is ReceiptState.VERIFIED


def _seen(verification: Verification) -> bool:
    """A claim without a proof is none."""
    return verification.verified and bool(verification.proof.strip())
