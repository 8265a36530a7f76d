"""Document the incident for compliance: what data, whose models or hosts, when it was known, and until when to decide.

The document is drawn from this incident's receipts alone, so that it says nothing that is not on record. It decides
nothing: whether an authority or anybody else must be told is a person's decision, and the time for it is in it.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from pydantic import Field

from clawback.action import Action, Context, Params, Plan, Record, Reversibility, Verification
from clawback.actions._recorded import HOUR_NS
from clawback.model import Enforcement, Phase, ReceiptState

__all__ = ["ACTION", "DocumentParams"]

NOTIFY_NS = 72 * HOUR_NS  # GDPR Article 33(1): to the authority within 72 hours of having become aware
_DRAWN_FROM = ("incident.scope", "access.review", "routing.audit")
_CONTAINING = ("agent.freeze", "agent.isolate", "agents.halt", "inference.local-only", "inference.queue-sensitive")


class DocumentParams(Params):
    """`kind` names the document: `data-routing`, `data-exfiltration`. `revision` grows with what is on record."""

    kind: str = Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")
    revision: int = Field(0, ge=0)


def _document(ctx: Context, params: DocumentParams) -> dict[str, Any]:
    incident = ctx.incident
    aware = min((x.time_ns for x in incident.findings), default=incident.opened_ns)
    done = {x.action: x for x in incident.receipts if x.state is ReceiptState.VERIFIED}
    contained = [x.verified_ns for name, x in done.items() if name in _CONTAINING]
    return {
        "incident": incident.id,
        "kind": params.kind,
        "drill": incident.drill,
        "subject": incident.agent,
        "severity": incident.severity.name.lower(),
        "first_event_ns": aware,
        "contained_ns": min(contained, default=0),
        "decide_on_notification_before_ns": aware + NOTIFY_NS,
        "findings": [
            {"detector": x.detector, "resource": x.resource, "owasp": [*x.asi], "source_owasp": [*x.seed_asi]}
            for x in incident.findings
        ],
        "facts": {name: dict(done[name].outcome) for name in _DRAWN_FROM if name in done},
        "not_on_record": [name for name in _DRAWN_FROM if name not in done],
        "steps": [
            {"action": x.action, "phase": x.phase.value, "csf": x.phase.csf, "state": x.state.value, "proof": x.proof}
            for x in incident.receipts
        ],
        "to_be_decided_by_a_person": [
            "is this a personal data breach",
            "who must be told",
            "what is kept, and how long",
        ],
    }


def _text(document: dict[str, Any]) -> str:
    # ASCII: what an agent chose must not turn the text around, or hide in it, where an auditor reads it on a terminal.
    return json.dumps(document, indent=1, sort_keys=True, default=str).replace("\x7f", "\\u007f")


def _plan(ctx: Context, params: DocumentParams) -> Plan:
    there = ctx.world.documents.read(ctx.incident.id, params.kind)
    return Plan(changes=(f"+ document {params.kind} of {ctx.incident.id} {'replaced' if there else 'written'}",))


def _apply(ctx: Context, params: DocumentParams, _captured: Record) -> Record:
    text = _text(_document(ctx, params))
    where = ctx.world.documents.write(ctx.incident.id, params.kind, text)
    return {"where": where, "sha256": sha256(text.encode("utf-8", "backslashreplace")).hexdigest()}


def _verify(ctx: Context, params: DocumentParams, _captured: Record, outcome: Record) -> Verification:
    text = ctx.world.documents.read(ctx.incident.id, params.kind)
    same = bool(text) and sha256(text.encode("utf-8", "backslashreplace")).hexdigest() == outcome["sha256"]
    missing = json.loads(text).get("not_on_record", []) if same else []
    return Verification(
        verified=same,
        enforcement=Enforcement.FULL if same and not missing else Enforcement.PARTIAL if same else Enforcement.NONE,
        proof=f"document {params.kind} read back, SHA-256 {outcome['sha256'][:12]}"
        + (f"; without {', '.join(missing)}" if missing else "")
        if same
        else f"document {params.kind} {'reads back differently' if text else 'is not there'}",
    )


ACTION = Action(
    id="compliance.document",
    summary="Write down for auditors what data was concerned, what was done, and what is to be decided.",
    phase=Phase.POST_INCIDENT,
    reversibility=Reversibility.IRREVERSIBLE,  # what was written may have been read
    needs=frozenset({"documents:write", "documents:read"}),
    scope="one document of this incident",
    openc2="create",
    params=DocumentParams,
    key=lambda params: f"{params.kind}:{params.revision}",
    plan=_plan,
    capture=lambda _ctx, _params: {},
    apply=_apply,
    verify=_verify,
)
