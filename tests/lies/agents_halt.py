"""agents.halt: one of them is thawed, left out, or never frozen; the halt is lifted, or never stood."""

from __future__ import annotations

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.fleet import lists_only
from lies.liar import Answer

from clawback.actions.agents_halt import ACTION
from clawback.enforcement.core import wire
from clawback.model import Halt, HaltReport, Level, Order, Selector, SelectorKind

_seen = []


def _selector(scene):
    return Selector(kind=SelectorKind.TREE, value=scene.agent)


def _made_up():
    scene = _seen[-1]
    order = Order(levels=(Level.FREEZE,), reason="r", by="b", incident=scene.incident_id, halt="HALT-1")
    return Halt(id="HALT-1", selector=_selector(scene), order=order)


def _halts_again(scene, _outcome):
    scene.true_core.halt(_selector(scene), Level.FREEZE, reason="again", by="another", incident=scene.incident_id)


def _thaw_and_leave_out(scene, _outcome):
    scene.kernel("0")
    lists_only(scene, scene.agent)


def _freeze_and_leave_out(scene, _outcome):
    scene.kernel("1")
    lists_only(scene, scene.agent)


CASE = Case(
    action=ACTION,
    scene="fleet",
    before=_seen.append,
    params=lambda scene: {"kind": "tree", "value": scene.agent, "reason": "a lie suite"},
    holds=lambda scene, _: scene.all_still() and bool(scene.halts()),
    lies=(
        Lie(
            what="one is thawed by the kernel's file",
            drifts=True,
            behind=lambda scene, _: scene.kernel("0"),
            races=True,
        ),
        Lie(what="one is thawed, and the core leaves it out", behind=_thaw_and_leave_out, races=True),
        Lie(what="somebody lifts it", behind=lambda scene, _: scene.lift_all()),
        Lie(
            what="the core says halted and does nothing",
            part="core",
            about=asked("POST", "/halts"),
            answer=lambda _request: Answer(wire.HALT.dump_json(HaltReport(halt=_made_up()))),
        ),
        Lie(
            what="the core says that it stands and does nothing",
            part="core",
            about=lambda request: request.path == "/halts",
            answer=lambda _request: Answer(wire.HALTS.dump_json((_made_up(),))),
        ),
    ),
    reads=("core",),
    undone=lambda scene, _: not scene.halts() and scene.all_run(),
    revert_lies=(
        Lie(what="somebody halts them again", behind=_halts_again),
        Lie(
            what="one is frozen by the kernel's file",
            behind=lambda scene, _: scene.kernel("1"),
            mend=lambda scene: scene.kernel("0"),
        ),
        Lie(
            what="one is frozen, and the core leaves it out",
            behind=_freeze_and_leave_out,
            mend=lambda scene: scene.kernel("0"),
        ),
        Lie(what="the core says lifted and does nothing", part="core", about=asked("POST", "/lift"), answer=yes([])),
        Lie(
            what="the core says that none stands",
            part="core",
            about=lambda request: request.path == "/halts",
            answer=yes([]),
        ),
    ),
    revert_reads=("core",),
)
