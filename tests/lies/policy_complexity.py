"""policy.complexity: the text is another version's, another decides, or nobody saw which rules are used."""

from __future__ import annotations

import dataclasses
import json

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.liar import Answer
from lies.record import hidden, torn, vanishing

from clawback.actions.policy_complexity import ACTION
from clawback.model import HttpActivity, Source

_seen = []


def _before(scene):
    _seen.append(scene)
    rule = f"allow-1:{scene.RULE}"
    about = {"method": "GET", "host": "a.example.com", "port": 443, "path": "/", "policy": scene.agent}
    scene.tell(Source.POLICY, HttpActivity, rule=rule, policy_version=2, **about)


def _params(scene):
    return {"policy": scene.agent}


def _active_is_the_first(_request):
    scene = _seen[-1]
    return Answer(json.dumps(dataclasses.asdict(scene.true_policies.versions(scene.agent)[0])).encode())


def _another_decides(scene, _outcome):
    scene.true_policies.put(scene.agent, scene.WIDER, author="somebody", reason="meanwhile")


def _holds(scene, receipt):
    active = scene.true_policies.active(scene.agent)
    said = receipt.outcome
    return (said.get("version"), said.get("sha256"), said.get("rules")) == (active.version, active.sha256, 1)


CASE = Case(
    action=ACTION,
    scene="versions",
    before=_before,
    params=_params,
    holds=_holds,
    lies=(
        *vanishing(Source.POLICY),
        torn(Source.POLICY),
        hidden(ACTION, _params, Source.POLICY),
        Lie(
            what="the gateway says that an older version decides",
            part="gateway",
            about=asked("GET", "/active"),
            answer=_active_is_the_first,
        ),
        Lie(
            what="the gateway shows another text",
            part="gateway",
            about=asked("GET", "/versions/"),
            answer=yes({"text": "networkPolicy: {name: p, egress: {allow: []}}"}),
        ),
        Lie(
            what="the gateway shows what is no policy",
            part="gateway",
            about=asked("GET", "/versions/"),
            answer=yes({"text": "networkPolicy: [1, 2]"}),
        ),
        Lie(what="another text is put meanwhile", behind=_another_decides),
    ),
    reads=("gateway",),
    changes_nothing="it counts a policy's rules and writes the report into its own receipt",
)
