"""policy.validate: the rogue call goes through after all, was never tried, or was denied and nobody was told."""

from __future__ import annotations

from lies.answers import asked, yes
from lies.case import Case, Lie

from clawback.actions.agent_relaunch import ACTION as RELAUNCH
from clawback.actions.policy_validate import ACTION


def _before(scene):
    """An incident about a call that no policy of the scene's allows."""
    attempts = (("open", "/root/.aws/credentials"),)
    scene.open(attempts=attempts, technique="T1000", resource="/quiet", instance="quiet-" + scene.instance)
    scene.must(RELAUNCH, **scene.who, reason="to be validated")


CASE = Case(
    action=ACTION,
    scene="staged",
    before=_before,
    params=lambda scene: {"agent": scene.agent, "replaced": scene.instance},
    holds=lambda _scene, receipt: "1 of 1 rogue calls denied" in receipt.proof,
    lies=(
        Lie(
            what="the telemetry is gone",
            behind=lambda scene, _: scene.lose_telemetry(),
            mend=lambda scene: scene.find_telemetry(),
        ),
        Lie(
            what="the core tries nothing and says nothing",
            part="core",
            about=asked("POST", "/attempt"),
            answer=yes([]),
        ),
        Lie(
            what="the core answers for another call",
            part="core",
            about=asked("POST", "/attempt"),
            answer=yes([{"attempt": {"kind": "open", "target": "/nowhere"}, "denied": True, "detail": "EACCES"}]),
        ),
        Lie(
            what="the core lets it through",
            part="core",
            about=asked("POST", "/attempt"),
            answer=yes(
                [{"attempt": {"kind": "open", "target": "/root/.aws/credentials"}, "denied": False, "detail": ""}]
            ),
        ),
    ),
    reads=("core",),
    changes_nothing="it tries calls inside the sandbox and leaves nothing behind that could be undone",
)
