"""Rows to frozen types and back, and the journal's edge: what is written is bounded, plain and without secrets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy import Row

from clawback.errors import InvalidInput
from clawback.log import redact, redact_text
from clawback.model import (
    Enforcement,
    Finding,
    Incident,
    IncidentStatus,
    Level,
    Orchestration,
    Phase,
    Receipt,
    ReceiptState,
    Severity,
    TimelineEntry,
)

__all__ = ["bounded", "digest_of", "finding_body", "identifier", "occurrence_of", "plain", "to_finding", "to_incident"]
__all__ += ["to_receipt", "to_timeline"]

_log = structlog.get_logger()

_TEXT = 4_096
_SHORT = 512
_LIST = 64
_JSON_BYTES = 1 << 20
_IDENTIFIER = 256


def bounded(text: str, limit: int = _TEXT) -> str:
    """Storable text: no lone surrogates, NULs or secrets, at most `limit` characters, the last an ellipsis if cut."""
    # Twice the limit is kept for redaction, so that a secret across the cut is recognised before it is halved.
    head = text[: 2 * limit].encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    head = redact_text(head)
    return head if len(head) <= limit and len(text) <= 2 * limit else head[: limit - 1] + "…"


def identifier(value: str, what: str) -> str:
    """An agent's or instance's id, unchanged: cut short it might be somebody else's. `InvalidInput` if it is none."""
    if not value or len(value) > _IDENTIFIER or not value.isprintable():
        raise InvalidInput(
            f"{what} {value[:40]!a} is not an identifier", hint=f"1 to {_IDENTIFIER} printable characters"
        )
    return value


def plain(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The mapping as JSON holds it, redacted. `InvalidInput` for what JSON cannot hold, or more than 1 MiB."""
    try:
        text = json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{what} cannot be journalled: {type(error).__name__}", hint="return plain JSON values"
        ) from None
    if len(text) > _JSON_BYTES:
        raise InvalidInput(f"{what} cannot be journalled: {len(text)} bytes", hint="at most 1 MiB; keep bulk in files")
    data: dict[str, Any] = json.loads(text)
    clean: dict[str, Any] = redact(data)
    if clean != data:
        # The record is safe now, and perhaps useless for undoing: whoever wrote the action must hear of it.
        _log.warning("a value that looks like a secret was kept out of the journal", record=what)
    return clean


def digest_of(finding: Finding) -> str:
    """Of what makes two findings one, at full length."""
    return _digest(finding.key)


def occurrence_of(finding: Finding) -> str:
    """Of that and the very events: the same telemetry read twice, by a watch that was killed in between."""
    return _digest((*finding.key, *finding.events))


def _digest(parts: tuple[Any, ...]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def finding_body(finding: Finding) -> dict[str, Any]:
    """A finding as stored: every text bounded, every list cut."""

    def bound(value: Any) -> Any:
        if isinstance(value, str):
            return bounded(value)
        if isinstance(value, tuple):
            return [bound(item) for item in value[:_LIST]]
        return value

    return {item.name: bound(getattr(finding, item.name)) for item in dataclasses.fields(finding)}


def to_finding(body: Mapping[str, Any]) -> Finding:
    """The other way round."""
    known = {item.name for item in dataclasses.fields(Finding)}
    values: dict[str, Any] = {
        name: tuple(tuple(item) if isinstance(item, list) else item for item in value)
        if isinstance(value, list)
        else value
        for name, value in body.items()
        if name in known
    }
    values["severity"] = Severity(values["severity"])
    values["reflex"] = None if values.get("reflex") is None else Level(values["reflex"])
    return Finding(**values)


def to_receipt(row: Row[Any]) -> Receipt:
    """A row of `receipts`, its JSON parsed or as it is stored."""
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name for it
    for name in ("params", "captured", "outcome"):
        if isinstance(values[name], str):
            values[name] = json.loads(values[name])
    values["phase"] = Phase(values["phase"])
    values["state"] = ReceiptState(values["state"])
    values["enforcement"] = None if values["enforcement"] is None else Enforcement(values["enforcement"])
    return Receipt(**values)


def to_timeline(row: Row[Any]) -> TimelineEntry:
    """A row of `timeline`."""
    return TimelineEntry(at_ns=row.at_ns, phase=Phase(row.phase), what=row.what, detail=row.detail)


def to_incident(
    row: Row[Any],
    found: tuple[Finding, ...] = (),
    done: tuple[Receipt, ...] = (),
    entries: tuple[TimelineEntry, ...] = (),
) -> Incident:
    """A row of `incidents` and what hangs on it."""
    return Incident(
        id=row.id,
        agent=row.agent,
        instance=row.instance,
        status=IncidentStatus(row.status),
        phase=Phase(row.phase),
        severity=Severity(row.severity),
        playbook=row.playbook,
        drill=row.drill,
        orchestration=Orchestration(row.orchestration),
        opened_ns=row.opened_ns,
        closed_ns=row.closed_ns,
        findings=found,
        receipts=done,
        timeline=entries,
    )
