"""release.watch: something happens right after the last look, or the telemetry is gone, or time is made up."""

from __future__ import annotations

import dataclasses
import time

from lies.case import Case, Lie

from clawback.actions.release_watch import ACTION
from clawback.model import Level


def _params(scene):
    return {"agent": scene.agent, "instance": scene.watched.outcome["instance"], "stage": "observe-only"}


def _before(scene):
    scene.watched = scene.observe()


def _found(scene, _outcome):
    """A detector has something to say of it, as of an incident of its own."""
    (finding,) = scene.journal.incident(scene.incident_id).findings
    instance = scene.watched.outcome["instance"]
    new = dataclasses.replace(finding, instance=instance, time_ns=time.time_ns(), events=("e2",))
    _, opened = scene.journal.open_or_join(new, playbook="contain-rogue-agent")
    assert opened
    scene.misbehaved = True


def _start_anew(scene, _outcome):
    scene.start_anew()
    scene.misbehaved = True  # nobody knows what the one that is gone would have done


def _ended(_scene, outcome):
    outcome.update(ended=True, exit_status=0, watched_ms=0)


def _for_an_hour(_scene, outcome):
    outcome["watched_ms"] = 3_600_000


def _not_at_all(_scene, outcome):
    outcome["watched_ms"] = 0


def _for_nothing(_scene, outcome):
    outcome["clean"] = False


CASE = Case(
    action=ACTION,
    scene="staged",
    before=_before,
    params=_params,
    holds=lambda scene, receipt: (
        receipt.outcome["clean"] is (not scene.misbehaved and scene.here().hold is None)
        and (not receipt.outcome["clean"] or 300 <= receipt.outcome["watched_ms"] < 600_000)
    ),
    lies=(
        Lie(
            what="it is held again",
            behind=lambda scene, _: scene.hold(),
            mend=lambda scene: scene.let_go(Level.FREEZE),
        ),
        Lie(what="it tries what its policy denies", behind=lambda scene, _: scene.go_rogue()),
        Lie(what="a detector finds something", behind=_found),
        Lie(what="another starts it anew", behind=_start_anew),
        Lie(
            what="the telemetry is gone",
            behind=lambda scene, _: scene.lose_telemetry(),
            mend=lambda scene: scene.find_telemetry(),
        ),
        Lie(what="it is said to have ended", behind=_ended),
        Lie(what="it is said to have been watched for an hour", behind=_for_an_hour),
        Lie(what="it is said not to have been watched", behind=_not_at_all),
        Lie(what="it is said to have misbehaved", behind=_for_nothing),
    ),
    reads=("core", "gateway"),
    changes_nothing="it looks at the agent and the telemetry, and its answer is its own receipt",
)
