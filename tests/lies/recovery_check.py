"""recovery.check: it was brought back meanwhile, or that it was is erased, or the answer is turned round on its way."""

from __future__ import annotations

from lies.case import Case, Lie
from lies.recovered import brought_back, erase, on_record, write_again

from clawback.actions.recovery_check import ACTION


def _turned_round(_scene, outcome):
    outcome["automatic"] = not outcome["automatic"]


def _others(_scene, outcome):
    outcome["earlier"] = []


def _true(scene, receipt):
    earlier = on_record(scene)
    return (receipt.outcome["earlier"], receipt.outcome["automatic"]) == (earlier, not earlier)


CASE = Case(
    action=ACTION,
    scene="desk",
    before=brought_back,
    params=lambda scene: {"agent": scene.agent, "instance": scene.instance},
    holds=_true,
    lies=(
        Lie(what="the answer is turned round", behind=_turned_round),
        Lie(what="the earlier ones are left out", behind=_others),
        Lie(what="it is brought back by another meanwhile", behind=brought_back),
        Lie(what="that it was brought back is erased", behind=erase, mend=write_again),
    ),
    changes_nothing="it counts what the journal has on record, and its answer is its own receipt",
)
