"""incident.review: the times that it recorded are not the record's; the review is another's by the time it is read."""

from __future__ import annotations

from pathlib import Path

from lies.case import Case, Lie

from clawback.actions.incident_review import ACTION


def _frozen_later(scene, outcome):
    """What it wrote down is changed on its way."""
    outcome["times_ms"]["frozen"] = 0.001


def _rewritten(_scene, outcome):
    path = Path(outcome["where"]["markdown"])
    path.write_text(path.read_text().replace("incident", "accident", 1))


CASE = Case(
    action=ACTION,
    scene="policies",
    params=lambda scene: {"policy": scene.agent},
    holds=lambda _scene, receipt: receipt.outcome["root_causes"][0]["category"] == "misconfiguration",
    lies=(
        Lie(what="a time is changed", behind=_frozen_later),
        Lie(what="somebody rewrites the review", behind=_rewritten),
    ),
    files_only="verifying reads the journal alone",
    changes_nothing="it writes a review and its own receipt, which the journal's audit chain guards",
)
