"""Incidents and the catalogue as plain data, for `--json` and for tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clawback.journal import SETTLED
from clawback.model import Incident, Phase, ReceiptState
from clawback.reports.facts import draw
from clawback.reports.jsonable import jsonable
from clawback.reports.times import receipts, times_ms

if TYPE_CHECKING:
    from clawback.catalog import Catalog

__all__ = ["artefacts", "catalogue", "phases", "record", "summarise", "unsettled_counts"]


def summarise(incident: Incident) -> dict[str, Any]:
    """One incident in a line."""
    return {
        "id": incident.id,
        "agent": incident.agent,
        "instance": incident.instance,
        "severity": incident.severity.name.lower(),
        "status": incident.status.value,
        "phase": incident.phase.value,
        "orchestration": incident.orchestration.value,
        "playbook": incident.playbook,
        "drill": incident.drill,
        "opened_ns": incident.opened_ns,
        "closed_ns": incident.closed_ns,
        "findings": len(incident.findings),
        "receipts": len(incident.receipts),
        "unsettled": unsettled_counts(incident),
    }


def unsettled_counts(incident: Incident) -> str:
    """What keeps it open, in words: `2 unverified, 1 applied`; empty where nothing does."""
    counts = Counter(receipt.state.value for receipt in incident.receipts if receipt.state not in SETTLED)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def phases(incident: Incident) -> list[dict[str, Any]]:
    """The phases that were entered, each with its CSF 2.0 function and how many of its steps were verified."""
    entered = {entry.phase for entry in incident.timeline} | {receipt.phase for receipt in incident.receipts}
    made = {phase: [x for x in incident.receipts if x.phase is phase] for phase in Phase if phase in entered}
    return [
        {
            "phase": phase.value,
            "csf": phase.csf,
            "steps": len(found),
            "verified": sum(x.state is ReceiptState.VERIFIED for x in found),
        }
        for phase, found in made.items()
    ]


def artefacts(incident: Incident) -> dict[str, str]:
    """Where the ticket's two forms and the evidence are, of those that were verified: `ticket_markdown` …"""
    found: dict[str, str] = {}
    for receipt in incident.receipts:
        if receipt.state is not ReceiptState.VERIFIED:
            continue
        if receipt.action == "ticket.write":
            found |= {f"ticket_{form}": str(path) for form, path in receipt.outcome.get("where", {}).items()}
        elif receipt.action == "evidence.collect":
            found["evidence"] = str(receipt.outcome.get("folder", ""))
    return found


def record(incident: Incident) -> dict[str, Any]:
    """The whole incident as plain JSON: summary, times, phases, findings, receipts, timeline, artefacts."""
    return {
        **summarise(incident),
        "incident": incident.id,
        "times_ms": times_ms(incident),
        "phases": phases(incident),
        "findings": jsonable(incident.findings),
        "receipts": receipts(incident),
        "timeline": jsonable(draw(incident).timeline),
        "artefacts": artefacts(incident),
    }


def _rows(units: Mapping[str, Any], about: str) -> list[dict[str, str]]:
    return [{"id": name, "summary": getattr(unit, about)} for name, unit in units.items()]


def catalogue(found: Catalog) -> dict[str, list[dict[str, str]]]:
    """Every unit by kind, as `{id, summary}`."""
    return {
        "actions": _rows(found.actions, "summary"),
        "detectors": _rows(found.detectors, "title"),
        "playbooks": _rows(found.playbooks, "title"),
        "runbooks": _rows(found.runbooks, "title"),
    }
