"""policy.timely: the decisions that were in time are another policy's, older than the alert, or of a clock ahead."""

from __future__ import annotations

from lies.case import Case, Lie
from lies.record import torn, vanishing

from clawback.actions.policy_timely import ACTION
from clawback.model import Lifecycle, Source


def _says(scene, decisions, slow, minutes_ago, **fields):
    about = {"component": "policy-engine", "status": "alive", "policy": scene.agent, "mine": False, **fields}
    scene.tell(Source.POLICY, Lifecycle, decisions=decisions, slow=slow, minutes_ago=minutes_ago, **about)


def _before(scene):
    _says(scene, 1000, 0, 20)
    _says(scene, 100, 50, 11)
    scene.open(technique="policy-latency", resource=scene.agent)
    _says(scene, 100, 50, 2)
    _says(scene, 9900, 2, 1)


def _only(what, *said):
    """Instead of all that was said, this."""

    def behind(scene, _outcome):
        scene.stream(Source.POLICY).rename(scene.folder / "kept")
        for decisions, slow, minutes_ago, fields in said:
            _says(scene, decisions, slow, minutes_ago, **fields)

    def mend(scene):
        scene.stream(Source.POLICY).unlink(missing_ok=True)
        (scene.folder / "kept").rename(scene.stream(Source.POLICY))

    return Lie(what=what, behind=behind, mend=mend)


CASE = Case(
    action=ACTION,
    scene="ledger",
    before=_before,
    params=lambda scene: {"policy": scene.agent},
    holds=lambda _scene, receipt: "52 of 10000 decisions" in receipt.proof,
    lies=(
        *vanishing(Source.POLICY),
        torn(Source.POLICY),
        _only("it is slow again", (100, 2, 1, {})),
        _only("it decided nothing", (0, 0, 1, {})),
        _only("it was in time before the alert", (1000, 0, 11, {})),
        _only("another policy is in time", (1000, 0, 1, {"policy": "another"})),
        _only("another component is in time", (1000, 0, 1, {"component": "gateway"})),
        _only("it is in time by a clock that is ahead", (100, 50, 1, {}), (1000, 0, -24 * 60, {})),
    ),
    changes_nothing="it reads what the policy engine reported",
)
