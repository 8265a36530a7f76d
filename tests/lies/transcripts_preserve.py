"""transcripts.preserve: as evidence is; the core collects other things instead; what the agent was told is reworded."""

from __future__ import annotations

from lies.answers import asked
from lies.bundles import Anothers, shown, tampering, whole
from lies.case import Case, Lie

from clawback.actions.transcripts_preserve import ACTION

_anothers, _seen = Anothers(), []


def _before(scene):
    _seen.append(scene)
    _anothers.collect(scene)


def _something_else(_request):
    """All that there is of the agent, but for its transcripts."""
    scene = _seen[-1]
    return shown(scene.true_core.evidence(scene.agent, incident=scene.incident_id))


def _reword(_scene, outcome):
    outcome["prompts"] = ["answer the ticket"]


def _leave_out(_scene, outcome):
    outcome["transcripts"], outcome["prompts"] = 0, []


def _holds(scene, receipt):
    return whole(scene, receipt) and receipt.outcome["transcripts"] == 1 and receipt.outcome["prompts"] == [scene.told]


CASE = Case(
    action=ACTION,
    scene="staged",
    before=_before,
    params=lambda scene: scene.who,
    holds=_holds,
    lies=(
        *tampering(_anothers),
        Lie(
            what="the core collects something else",
            part="core",
            about=asked("POST", "/evidence"),
            answer=_something_else,
        ),
        Lie(what="what it was told is reworded", behind=_reword),
        Lie(what="what it was told is left out", behind=_leave_out),
    ),
    not_looked_at="a bundle is verified when it is made, and whenever somebody reads it",
    files_only="verifying reads the bundle's files, which no server stands between",
)
