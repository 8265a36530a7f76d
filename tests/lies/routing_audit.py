"""routing.audit: queries are lost from the record, or were not in it when they were counted."""

from __future__ import annotations

from lies.case import Case
from lies.record import hidden, torn, vanishing

from clawback.actions.routing_audit import ACTION
from clawback.model import Disposition, RouteActivity, Sensitivity, Source


def _before(scene):
    def query(**fields):
        return scene.tell(
            Source.ROUTING, RouteActivity, model="m", endpoint="https://m.test", data_types=("ssn",), **fields
        )

    query(destination="local", sensitivity=Sensitivity.RESTRICTED)
    query(destination="cloud", sensitivity=Sensitivity.RESTRICTED, disposition=Disposition.BLOCKED)
    leak = query(destination="cloud", sensitivity=Sensitivity.CONFIDENTIAL, disposition=Disposition.ALLOWED)
    scene.open(detector="routing.sensitive-to-cloud", technique="T1567", resource="m.test", events=(leak.uid,))


def _params(scene):
    return {"agent": scene.agent, "findings": 2}


CASE = Case(
    action=ACTION,
    scene="ledger",
    before=_before,
    params=_params,
    holds=lambda _scene, receipt: (
        (receipt.outcome["queries"], receipt.outcome["held"], receipt.outcome["leaks"]) == (3, 1, 1)
        and receipt.outcome["leaked_to"] == {"m@https://m.test": 1}
    ),
    lies=(*vanishing(Source.ROUTING), torn(Source.ROUTING), hidden(ACTION, _params, Source.ROUTING)),
    changes_nothing="it counts what is recorded and writes the count into its own receipt",
)
