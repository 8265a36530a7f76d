"""incident.cause: the record says another cause, or another who decided, or nothing of it."""

from __future__ import annotations

import json

from lies.case import Case, Lie
from lies.recovered import rewrite

from clawback.actions._causes import root_causes
from clawback.actions.incident_cause import ACTION

_CAUSE = "misconfiguration"


def _another_cause(scene, _outcome):
    params = json.dumps({"cause": "external actor", "reason": "not us", "revision": 0})
    rewrite(scene, "UPDATE receipts SET params = ? WHERE action = 'incident.cause'", params)


def _another_revision(scene, _outcome):
    """What decides is another decision, of which nobody was told."""
    params = json.dumps({"cause": _CAUSE, "reason": "the quick fix", "revision": 7})
    rewrite(scene, "UPDATE receipts SET params = ? WHERE action = 'incident.cause'", params)


def _decided(scene, _receipt):
    first = root_causes(scene.journal.incident(scene.incident_id), ())[0]
    return (first["category"], first.get("decided_by")) == (_CAUSE, "tester")


CASE = Case(
    action=ACTION,
    scene="desk",
    params=lambda _: {"cause": _CAUSE, "reason": "the quick fix"},
    holds=_decided,
    lies=(
        Lie(what="the record says another cause", behind=_another_cause),
        Lie(
            what="the record says that another decided",
            behind=lambda scene, _: rewrite(
                scene, "UPDATE receipts SET actor = 'somebody' WHERE action = 'incident.cause'"
            ),
        ),
        Lie(what="the record says another decision", behind=_another_revision),
    ),
    changes_nothing="what it writes is its own receipt, which is taken back with it; it is read back for what it says",
)
