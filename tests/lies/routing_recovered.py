"""routing.recovered: the model was there before it went away, or in another's words, or nobody has looked since."""

from __future__ import annotations

from lies.case import Case, Lie
from lies.record import torn, vanishing

from clawback.actions.routing_recovered import ACTION
from clawback.model import Lifecycle, Source


def _says(scene, status, minutes_ago, **fields):
    about = {"source": Source.ROUTING, "component": "local-model", "mine": False, **fields}
    scene.tell(about.pop("source"), Lifecycle, status=status, minutes_ago=minutes_ago, **about)


def _before(scene):
    _says(scene, "available", 20)
    _says(scene, "unavailable", 11)
    scene.open(technique="local-model-unavailable", resource="local model")
    _says(scene, "unavailable", 9)
    _says(scene, "available", 1)


def _only(what, *said):
    """Instead of all that was said, this."""

    def behind(scene, _outcome):
        scene.stream(Source.ROUTING).rename(scene.folder / "kept")
        for status, minutes_ago, fields in said:
            _says(scene, status, minutes_ago, **fields)

    def mend(scene):
        scene.stream(Source.ROUTING).unlink(missing_ok=True)
        (scene.folder / "kept").rename(scene.stream(Source.ROUTING))

    return Lie(what=what, behind=behind, mend=mend)


def _is_away(scene, _outcome):
    _says(scene, "unavailable", 0)


CASE = Case(
    action=ACTION,
    scene="ledger",
    before=_before,
    params=lambda _: {},
    holds=lambda _scene, receipt: receipt.proof == "the router's last report: available",
    lies=(
        *vanishing(Source.ROUTING),
        torn(Source.ROUTING),
        Lie(
            what="it is away again",
            behind=_is_away,
            mend=lambda scene: _says(scene, "available", 0),
        ),
        _only("it was there before it went away", ("available", 20, {})),
        _only("it was there, and nobody has looked for long", ("available", 7, {})),
        _only("it will be there tomorrow, by a clock that is ahead", ("available", -24 * 60, {})),
        _only("it is ahead, and away now", ("available", -24 * 60, {}), ("unavailable", 1, {})),
        _only("another component is there", ("available", 1, {"component": "gateway"})),
        _only("another stream says so", ("unavailable", 1, {}), ("available", 1, {"source": Source.EXTERNAL})),
        _only("it says something that nobody knows", ("AVAILABLE \x1b[2J", 1, {})),
    ),
    changes_nothing="it reads what the router reported",
)
