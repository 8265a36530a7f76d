"""incident.review: the times that it recorded are not the record's."""

from __future__ import annotations

from lies.case import Case, Lie

from clawback.actions.incident_review import ACTION


def _frozen_later(scene, outcome):
    """What it wrote down is changed on its way."""
    outcome["times_ms"]["frozen"] = 0.001


CASE = Case(
    action=ACTION,
    scene="policies",
    params=lambda scene: {"policy": scene.agent},
    holds=lambda _scene, receipt: receipt.outcome["root_causes"][0]["category"] == "policy too wide",
    lies=(Lie(what="a time is changed", behind=_frozen_later),),
    files_only="verifying reads the journal alone",
    changes_nothing="it writes its findings into its own receipt; the journal's audit chain guards those",
)
