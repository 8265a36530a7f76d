"""Runs a playbook to its end and closes the incident, if everything in it was observed to have worked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from clawback.journal import SETTLED, Journal
from clawback.model import Incident, IncidentStatus, Phase, Receipt, ReceiptState
from clawback.playbook import Playbook
from clawback.response.books import Grown, chosen, run_all
from clawback.response.guard import guarded
from clawback.response.recheck import still_drifts
from clawback.response.respond import Responder
from clawback.response.undo import undo

__all__ = ["Run", "run_playbook", "unfinished", "unsettled"]

_log = structlog.get_logger()

# Findings may join while the playbook runs; it is run again for them, adopting what is done. An agent that keeps
# producing new ones must not keep the response in a circle.
_ROUNDS = 3
_BEGUN = frozenset({ReceiptState.INTENDED, ReceiptState.APPLIED, ReceiptState.UNVERIFIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run ended: the incident as it then stood, and the playbook's own error, if it raised one."""

    incident: Incident
    error: str = ""

    @property
    def pending(self) -> tuple[Receipt, ...]:
        """What keeps the incident open."""
        return unsettled(self.incident)


def run_playbook(
    playbook: Playbook,
    responder: Responder,
    known: Mapping[str, Playbook] | None = None,
    *,
    incident: Incident | None = None,
) -> Run:
    """From the top, every time: steps that are done are adopted. The incident closes only when all is settled.

    With it go the playbooks that joined the incident, found by id among `known`: the catalogue's, if none are given.
    An incident that somebody began to undo is undone to its end instead. `incident`, if it was read just now.
    """
    journal, incident_id = responder.response.journal, responder.response.incident_id
    incident = incident or journal.incident(incident_id)
    if incident.status is IncidentStatus.OPEN and (why := incident.undoing):
        for _ in undo(responder.response, f"gone on with: {why}"):
            pass
        return Run(incident=journal.incident(incident_id))
    _finish_reverts(responder, incident)
    for _ in range(_ROUNDS):
        if incident.status is IncidentStatus.CLOSED:
            break
        began, at = len(incident.findings), incident
        ended = guarded(f"playbook {playbook.id}", lambda at=at: _whole(playbook, at, responder, known))  # type: ignore[misc]  # mypy infers no type for a lambda's default
        if not ended.ok:
            journal.note(incident_id, journal.incident(incident_id).phase, "playbook stopped", ended.error)
            return Run(incident=journal.incident(incident_id), error=ended.error)
        if ended.value:
            incident = journal.incident(incident_id)
            continue
        _finish_containments(responder, at)
        incident = journal.close(incident_id, findings_seen=began)
        if len(incident.findings) == began:
            break
    if incident.status is not IncidentStatus.CLOSED:
        waiting = ", ".join(f"{receipt.action} {receipt.state.value}" for receipt in unsettled(incident))
        journal.note(incident_id, incident.phase, "incident stays open", waiting or "findings kept joining")
    return Run(incident=journal.incident(incident_id))


def _whole(first: Playbook, incident: Incident, responder: Responder, known: Mapping[str, Playbook] | None) -> bool:
    """Whether another playbook joined meanwhile: then all begin anew."""

    def books(now: Incident) -> tuple[Playbook, ...]:
        nonlocal known
        if known is None and any(name != first.id for name in now.playbooks):
            from clawback.catalog import load  # walks the folders; most incidents have one playbook

            known = load().playbooks
        return chosen(now, first, known or {})

    try:
        at = books(incident)
        run_all(at, incident, responder, lambda now: books(now) != at)
    except Grown:
        return True
    finally:
        responder.join()  # who leaves lets go of the agent's lock, and nothing may be made after that
    return False


def _finish_reverts(responder: Responder, incident: Incident) -> None:
    """What somebody began to undo and was cut off in, or could not reach, is undone before anything else is done."""
    for receipt in incident.receipts:
        if receipt.state in {ReceiptState.REVERT_PENDING, ReceiptState.REVERT_FAILED}:
            tried = guarded(f"revert of {receipt.action}", lambda it=receipt: responder.response.revert(it))  # type: ignore[misc]  # mypy infers no type for a lambda's default
            if not tried.ok:
                _log.warning("a revert could not be finished", action=receipt.action, error=tried.error)


def _finish_containments(responder: Responder, before: Incident) -> None:
    """A containment that an earlier life began, could not prove, or failed in, or that does not hold any more, and that
    this playbook has no step for, is made and seen all the same.

    A reflex that was cut off or lied to may be one, or a hold that the run before put on a recovery that it did not
    believe.
    """
    left = {receipt.id: receipt for receipt in before.receipts if receipt.phase is Phase.CONTAIN}
    for now in responder.incident().receipts:
        then = left.get(now.id)
        if then is None or (now.state, now.attempts) != (then.state, then.attempts):
            continue
        if not _is_to_be_finished(now) or (now.drifted and not still_drifts(responder.response, now)):
            continue
        tried = guarded(f"finishing {now.action}", lambda it=now: _made(responder, it))  # type: ignore[misc]  # mypy infers no type for a lambda's default
        if not tried.ok:
            _log.warning("a containment could not be finished", action=now.action, error=tried.error)


def _is_to_be_finished(receipt: Receipt) -> bool:
    return receipt.state in _BEGUN or (receipt.state is ReceiptState.FAILED and receipt.captured_ns > 0)


def _made(responder: Responder, receipt: Receipt) -> Receipt:
    action = responder.response.action(receipt.action)
    params = action.params.model_validate(receipt.params)
    return responder.response.execute(action, params, phase=receipt.phase)


def unsettled(incident: Incident) -> tuple[Receipt, ...]:
    """The receipts that keep an incident open."""
    return tuple(receipt for receipt in incident.receipts if receipt.state not in SETTLED)


def unfinished(journal: Journal) -> tuple[str, ...]:
    """Ids of the incidents that a start of the responder goes on with, oldest first."""
    return tuple(incident.id for incident in journal.incidents(IncidentStatus.OPEN))
