"""recovery.permit: what was permitted once more has happened meanwhile, or is erased from the record."""

from __future__ import annotations

from lies.case import Case, Lie
from lies.recovered import brought_back, erase, on_record, write_again

from clawback.actions.recovery_permit import ACTION


def _none(_scene, outcome):
    outcome["earlier"] = []


CASE = Case(
    action=ACTION,
    scene="desk",
    before=brought_back,
    params=lambda scene: {"agent": scene.agent, "instance": scene.instance},
    holds=lambda scene, receipt: (
        receipt.outcome["earlier"] == on_record(scene) and all(one in receipt.proof for one in on_record(scene))
    ),
    lies=(
        Lie(what="the earlier ones are left out", behind=_none),
        Lie(what="it is brought back by another meanwhile", behind=brought_back),
        Lie(what="that it was brought back is erased", behind=erase, mend=write_again),
    ),
    changes_nothing="it waits for a person, and what it says is in its own receipt; others bring the agent back",
)
