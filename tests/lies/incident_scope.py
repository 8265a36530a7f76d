"""incident.scope: what it was told is of another instance, or of another agent."""

from __future__ import annotations

import dataclasses

from lies.answers import asked
from lies.case import Case, Lie
from lies.liar import Answer

from clawback.actions.incident_scope import ACTION
from clawback.enforcement.core import wire


class _Another:
    """The agent as it is not."""

    def __init__(self, **changes):
        self.changes, self.scene = changes, None

    def __call__(self, _request):
        return Answer(wire.AGENT.dump_json(dataclasses.replace(_seen[-1].info, **self.changes)))


_seen = []

CASE = Case(
    action=ACTION,
    scene="host",
    before=_seen.append,
    params=lambda scene: scene.who,
    holds=lambda scene, receipt: (
        receipt.outcome["instance"] == scene.instance and receipt.outcome["process"]["pid"] == scene.info.pid
    ),
    lies=(
        Lie(
            what="the core tells of another instance",
            part="core",
            about=asked("GET", "/agents/"),
            answer=_Another(instance="another", pid=1),
        ),
        Lie(
            what="the core tells of another agent",
            part="core",
            about=asked("GET", "/agents/"),
            answer=_Another(agent="another", pid=1),
        ),
    ),
    reads=("core",),
    changes_nothing="it reads what there is and writes it into its own receipt, which the journal keeps",
)
