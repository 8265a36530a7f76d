"""Contain: the agent stands still and reaches nothing, its evidence is safe, and what holds it is made tighter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.actions.agent_restrict import ACTION as RESTRICT
from clawback.actions.agent_seal import ACTION as SEAL
from clawback.actions.evidence_collect import ACTION as COLLECT_EVIDENCE
from clawback.actions.transcripts_preserve import ACTION as PRESERVE
from clawback.model import Enforcement, Incident, Receipt, ReceiptState
from clawback.playbook import Respond, Step
from clawback.playbooks._identify import who, why

__all__ = ["Held", "hold", "hold_again", "stand_still", "tighten"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The receipts that letting the agent go again depends on: it was seen contained, and its evidence is safe."""

    frozen: Receipt
    isolated: Receipt
    evidence: Receipt
    tightened: tuple[Receipt, ...] = ()

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """As `after` takes them: all, but for what this host was seen not to give."""
        made = (receipt for receipt in self.tightened if receipt.state is not ReceiptState.UNVERIFIED)
        return (self.frozen, self.isolated, self.evidence, *made)


def stand_still(respond: Respond, incident: Incident) -> None:
    """Freeze, and collect evidence and transcripts: for what may turn out to be no attack. `hold` adopts all of it."""
    respond(FREEZE, FREEZE.params(**who(incident), reason=why(incident)))
    respond.together(
        Step(COLLECT_EVIDENCE, COLLECT_EVIDENCE.params(**who(incident))),
        Step(PRESERVE, PRESERVE.params(**who(incident))),
    )


def hold(respond: Respond, incident: Incident) -> Held:
    """Freeze first, so that nothing runs while the evidence is read; isolate and collect it side by side.

    So are transcripts, which must be kept before files are covered; an agent that has none is held and let go all the
    same.
    """
    reason = why(incident)
    frozen = respond(FREEZE, FREEZE.params(**who(incident), reason=reason))
    isolated, evidence, _ = respond.together(
        Step(ISOLATE, ISOLATE.params(**who(incident), reason=reason)),
        Step(COLLECT_EVIDENCE, COLLECT_EVIDENCE.params(**who(incident))),
        Step(PRESERVE, PRESERVE.params(**who(incident))),
    )
    return Held(frozen=frozen, isolated=isolated, evidence=evidence)


def tighten(respond: Respond, incident: Incident, held: Held) -> Held:
    """Beyond isolation a host gives what it can: what is missing is in the proof, and the tree dies anyway.

    What could not be made yet keeps the agent: once it is another instance, the step could never be made.
    """
    params: dict[str, Any] = {**who(incident), "reason": why(incident), "require": Enforcement.PARTIAL}
    restricted = respond(RESTRICT, RESTRICT.params(**params), after=(held.evidence,))
    return replace(held, tightened=(restricted, respond(SEAL, SEAL.params(**params), after=(held.evidence,))))


def hold_again(respond: Respond, incident: Incident, made: Sequence[Receipt], *, agent: str) -> None:
    """A recovery that was looked at and not proved is no recovery: the new instance is held like the old one.

    `made` are its steps, of which the last one says so. Whichever instance runs is meant: what a start answers is not
    known to be what it started. Each further attempt is an order of its own, so that it contains also what somebody
    released in between; one that was cut off is finished only while the step is still not proved.
    """
    params: dict[str, Any] = {
        "agent": agent,
        "reason": f"{incident.id}: {made[-1].action} {made[-1].state.value}",
        "again": sum(receipt.attempts for receipt in made),
        "unless": made[-1].key,
    }
    respond(FREEZE, FREEZE.params(**params))
    respond(ISOLATE, ISOLATE.params(**params))
