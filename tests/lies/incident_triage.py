"""incident.triage: nothing asks for containment, and the core tells of a hold on another instance."""

from __future__ import annotations

import dataclasses

from lies.answers import asked
from lies.case import Case, Lie
from lies.liar import Answer

from clawback.actions.incident_triage import ACTION
from clawback.enforcement.core import wire
from clawback.model import Hold, Level, Order

_seen = []


def _before(scene):
    """An alert that asks for nothing, and a person's order, which is the only ground."""
    _seen.append(scene)
    scene.open(reflex=None, technique="T1000", resource="/quiet", instance="quiet-" + scene.instance)
    scene.true_core.contain(scene.agent, Level.FREEZE, reason="a person says so", by="operator")


def _held_elsewhere(_request):
    scene = _seen[-1]
    order = Order(levels=(Level.FREEZE,), reason="made up", by="nobody")
    made_up = dataclasses.replace(scene.info, instance="another", hold=Hold.of(scene.agent, (order,)))
    return Answer(wire.AGENT.dump_json(made_up))


CASE = Case(
    action=ACTION,
    scene="host",
    before=_before,
    params=lambda scene: scene.who,
    holds=lambda scene, _: scene.true_core.agent(scene.agent).hold is not None,
    lies=(
        Lie(
            what="the core tells of a hold on another instance",
            part="core",
            about=asked("GET", "/agents/"),
            answer=_held_elsewhere,
        ),
    ),
    reads=("core",),
    changes_nothing="it reads the findings and the hold, and decides; its decision is its own receipt",
)
