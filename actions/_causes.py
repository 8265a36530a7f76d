"""What may have caused an incident: the seed's categories, each with the facts it rests on and how far they carry.

Rules state what they saw, and no more: a candidate is for the review meeting to confirm or strike, and what a person
decided (`incident.cause`) comes before all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clawback.model import Incident, PolicyVersion, ReceiptState
from clawback.reports.escape import plain

__all__ = ["CATEGORIES", "root_causes", "suspect"]

CATEGORIES = (
    "external actor",
    "compromised dependency",
    "misconfiguration",
    "prompt or instruction issue",
    "overly powerful tooling",
)
"""Of the source document 003, post-incident activities."""

_DAY_NS = 24 * 3_600 * 1_000_000_000
_LEAST, _MOST = 0.1, 0.9  # what rules may say; certainty is a person's


def suspect(incident: Incident, versions: tuple[PolicyVersion, ...]) -> PolicyVersion | None:
    """The policy version the rogue calls were made under, if nobody had marked it known-good."""
    used = {x.policy_version for x in incident.findings}
    return next((x for x in reversed(versions) if x.version in used and not x.known_good), None)


def root_causes(incident: Incident, versions: tuple[PolicyVersion, ...]) -> list[dict[str, Any]]:
    """Candidates as `{category, confidence, evidence, because}`, the strongest first; `confidence` from 0 to 1.

    `unknown` where no rule speaks. What a person decided stands first, at 1, with `decided_by`.
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for category, weight, fact in _facts(incident, versions):
        found.setdefault(category, []).append((weight, fact))
    causes: list[dict[str, Any]] = [
        {
            "category": category,
            "confidence": round(min(_MOST, max(_LEAST, 1 - _none_of(weight for weight, _ in facts))), 2),
            "evidence": [fact for _, fact in facts],
            "because": "; ".join(fact for _, fact in facts),
        }
        for category, facts in found.items()
    ]
    causes.sort(key=lambda cause: -float(cause["confidence"]))
    decided = _decided(incident)
    if decided:
        causes = [decided, *(cause for cause in causes if cause["category"] != decided["category"])]
    because = "no rule speaks for this set of findings"
    return causes or [{"category": "unknown", "confidence": 0.0, "evidence": [], "because": because}]


def _none_of(weights: Any) -> float:
    """The chance that none of several independent reasons holds."""
    left = 1.0
    for weight in weights:
        left *= 1 - weight
    return left


def _decided(incident: Incident) -> dict[str, Any] | None:
    said = [x for x in incident.receipts if x.action == "incident.cause" and x.state is ReceiptState.VERIFIED]
    if not said:
        return None
    last = max(said, key=lambda x: x.verified_ns)
    reason = plain(last.params.get("reason", ""), 300)
    return {
        "category": str(last.params.get("cause", "")),
        "confidence": 1.0,
        "evidence": [reason],
        "because": f"{plain(last.actor, 80)} decided: {reason}",
        "decided_by": last.actor,
    }


def _facts(incident: Incident, versions: tuple[PolicyVersion, ...]) -> list[tuple[str, float, str]]:
    """Category, how strong the fact is by itself, and the fact."""
    findings = incident.findings
    detectors = sorted({finding.detector for finding in findings})
    asi = {name for finding in findings for name in finding.asi}
    reached = [x for x in detectors if x.startswith(("exfiltration.", "secrets."))]
    facts: list[tuple[str, float, str]] = []
    if wide := suspect(incident, versions):
        who, first = plain(wide.author, 80), min((x.time_ns for x in findings), default=0)
        said = f"the calls were made under version {wide.version} by {who}, which was not marked known-good"
        facts.append(("misconfiguration", 0.6, said))
        if 0 <= first - wide.created_ns < _DAY_NS:
            hours = (first - wide.created_ns) / 3.6e12
            facts.append(("misconfiguration", 0.3, f"that version was {hours:.1f} hours old"))
    elif exfiltrated := [x for x in detectors if x.startswith("exfiltration.")]:
        # Not refused, and under a version that somebody had reviewed.
        facts.append(("overly powerful tooling", 0.5, f"{', '.join(exfiltrated)}: what it did, its policy allowed"))
    if any(x.startswith("routing.") for x in detectors):
        facts.append(("misconfiguration", 0.4, "sensitive data was on its way to a cloud model: no route forbade it"))
    if "ASI01" in asi:
        facts.append(("prompt or instruction issue", 0.3, "a finding is mapped to ASI01, goal hijack"))
    if len(detectors) > 1 and reached:
        said = f"it did several things it had never done, as {len(detectors)} detectors saw independently"
        facts.append(("prompt or instruction issue", 0.4, said))
    if held := _scope(incident).get("credentials", ()):
        said = f"it held {len(held)} credentials that work outside its sandbox"
        facts.append(("overly powerful tooling", 0.2 if len(held) < 4 else 0.4, said))
    if any(x.startswith("secrets.") for x in detectors):
        facts.append(("overly powerful tooling", 0.1, "it reached for secrets that its task does not need"))
    if code := [x for x in detectors if x.startswith("sandbox.") and x != "sandbox.down"]:
        said = f"{', '.join(code)}: it ran what its task does not need, which code it was given may have brought along"
        facts.append(("compromised dependency", 0.3, said))
    if taken := [x for x in detectors if x.startswith("credential.")]:
        facts.append(("external actor", 0.5, f"{', '.join(taken)}: somebody else used what the agent held"))
    elif outside := sorted({plain(x.resource, 80) for x in findings if x.detector.startswith("exfiltration.")}):
        facts.append(("external actor", 0.15, f"somebody is at {', '.join(outside[:3])}, where the data went"))
    return facts


def _scope(incident: Incident) -> Mapping[str, Any]:
    found = [x.outcome for x in incident.receipts if x.action == "incident.scope" and x.state is ReceiptState.VERIFIED]
    return found[-1] if found else {}
