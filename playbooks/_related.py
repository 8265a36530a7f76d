"""Agents in scope with the incident's own: contained with it, each by steps of its own, and let go when it is clean."""

from __future__ import annotations

from typing import Any

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.actions.agent_relaunch import ACTION as RELAUNCH
from clawback.actions.agent_release import ACTION as RELEASE
from clawback.actions.evidence_collect import ACTION as COLLECT_EVIDENCE
from clawback.actions.policy_validate import ACTION as VALIDATE
from clawback.model import Incident, Phase, Receipt, ReceiptState
from clawback.playbook import Respond, Step
from clawback.playbooks._contain import hold_again
from clawback.playbooks._identify import why

__all__ = ["contain_related", "let_go_on", "release_related"]


def contain_related(respond: Respond, incident: Incident, scope: Receipt) -> tuple[Receipt, ...]:
    """Freeze all, then isolate all, then collect evidence of each: sub-agents and those that hold the same credential.

    Containment waits for nobody; both levels end with the release. Of more agents than the scope takes in unasked, the
    rest are named there, and `clawback halt` takes any number.
    """
    held: list[Receipt] = []
    for level in (FREEZE, ISOLATE):
        steps = [Step(level, level.params(**_who(other), reason=_reason(incident, other))) for other in _related(scope)]
        held += respond.together(*steps) if steps else ()
    collected = [Step(COLLECT_EVIDENCE, COLLECT_EVIDENCE.params(**_who(other))) for other in _related(scope)]
    return (*held, *(respond.together(*collected) if collected else ()))


def release_related(
    respond: Respond, incident: Incident, scope: Receipt, *, after: tuple[Receipt, ...]
) -> tuple[Receipt, ...]:
    """Let them go once all of `after` is verified; one whose credentials were replaced starts anew to be given them."""
    done: list[Receipt] = []
    for other in _related(scope):
        params = {**_who(other), "reason": _reason(incident, other)}
        done += let_go_on(respond, incident, params, after=after, anew=bool(other.get("credentials")))
    return tuple(done)


def let_go_on(
    respond: Respond, incident: Incident, params: dict[str, Any], *, after: tuple[Receipt, ...], anew: bool = False
) -> tuple[Receipt, ...]:
    """Release an agent that is not the incident's own. It goes on where it stood, or starts anew: if it is to, or if
    an incident that was through earlier stopped it and handed its release over. What it did in such a one is replayed,
    and it is held again where that is not denied.
    """
    done = [respond(RELEASE, RELEASE.params(**params), after=after)]
    handed_over, ended, owed = (done[0].outcome.get(x) for x in ("held_by", "ended", "answers_for"))
    if handed_over:
        return tuple(done)
    if anew or ended:
        done.append(respond(RELAUNCH, RELAUNCH.params(**params), after=(done[0],)))
    if owed:
        replaced = params["instance"] if anew or ended else ""
        done.append(respond(VALIDATE, VALIDATE.params(agent=params["agent"], replaced=replaced), after=(done[-1],)))
        if done[-1].state is ReceiptState.UNVERIFIED:
            with respond.phase(Phase.CONTAIN):
                hold_again(respond, incident, done, agent=params["agent"])
    return tuple(done)


def _related(scope: Receipt) -> tuple[dict[str, Any], ...]:
    """As the journal has them: the same on every run."""
    return tuple(scope.outcome.get("related", ()))


def _who(other: dict[str, Any]) -> dict[str, Any]:
    return {"agent": str(other["id"]), "instance": str(other["instance"])}


def _reason(incident: Incident, other: dict[str, Any]) -> str:
    return f"{why(incident)}; {', '.join(map(str, other.get('why', ())))}"[:500]
