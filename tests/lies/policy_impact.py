"""policy.impact: who used the policy is not on record any more, left out by the core, or by the gateway."""

from __future__ import annotations

import dataclasses
import json

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.fleet import lists_only
from lies.liar import Answer
from lies.record import vanishing
from lies.scenes import until

from clawback.actions.policy_impact import ACTION
from clawback.connectors.telemetry import FileTelemetry
from clawback.model import HttpActivity, PolicyChange, Source

_seen = []
_RULE = "allow-1:*.example.org"


def _widened(scene):
    events = FileTelemetry(scene.telemetry).events(sources=(Source.POLICY,), policy=scene.agent, since_ns=0).events
    return any(isinstance(x, PolicyChange) and x.policy_version == 2 and x.widened for x in events)


def _before(scene):
    """A second version allows more than the first, and the worker uses it."""
    _seen.append(scene)
    wide = scene.POLICY.replace("allow: []", "allow: [{domain: '*.example.org', ports: [443]}]")
    scene.true_policies.put(scene.agent, wide, author="somebody \x1b[2J", reason="quick fix")
    until(lambda: _widened(scene), what="the gateway's comparison")
    _use(scene, scene.worker)


def _use(scene, agent):
    about = {"method": "GET", "host": "drop.example.org", "port": 443, "path": "/x?y=z", "rule": _RULE}
    instance = scene.true_core.agent(agent).instance
    about |= {"agent": agent, "instance": instance, "policy": scene.agent, "policy_version": 2}
    scene.tell(Source.POLICY, HttpActivity, minutes_ago=0, **about)


def _holds(scene, receipt):
    used = {
        "instance": scene.true_core.agent(scene.worker).instance,
        "calls": [f"drop.example.org:443/x by rule {_RULE}"],
        "held_by_others": False,
    }
    said = receipt.outcome
    return said.get("harmed", {}).get(scene.worker) == used and said.get("agents") == sorted(
        (scene.agent, scene.worker)
    )


def _used_by_more(scene, outcome):
    """What was drawn is of a time in which more was done than had been read."""
    _use(scene, scene.agent)
    outcome["until_ns"] += 60 * 10**9


def _versions(first):
    """The wide version as if somebody had reviewed it, or as if the good one were later."""

    def answer(_request):
        versions = [dataclasses.asdict(x) for x in _seen[-1].true_policies.versions(_seen[-1].agent)]
        return Answer(json.dumps(versions[:1] if first else versions[1:]).encode())

    return answer


CASE = Case(
    action=ACTION,
    scene="fleet",
    before=_before,
    params=lambda scene: {"policy": scene.agent, "version": 2, "stage": "mended"},
    holds=_holds,
    lies=(
        *vanishing(Source.POLICY),
        Lie(what="another used it, and was not seen", behind=_used_by_more),
        Lie(what="the core leaves out who used it", behind=lambda scene, _: lists_only(scene, scene.agent)),
        Lie(what="the core leaves out who did not", behind=lambda scene, _: lists_only(scene, scene.worker)),
        Lie(
            what="the core lists nobody",
            part="core",
            about=lambda request: request.path == "/agents",
            answer=yes([]),
        ),
        Lie(
            what="the gateway knows of no wide version",
            part="gateway",
            about=asked("GET", "/versions"),
            answer=_versions(first=True),
        ),
        Lie(
            what="the gateway knows of no good version",
            part="gateway",
            about=asked("GET", "/versions"),
            answer=_versions(first=False),
        ),
    ),
    reads=("core", "gateway"),
    changes_nothing="it compares versions and reads who used the difference; its receipt is all that it writes",
)
