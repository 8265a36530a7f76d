"""An agent that may reach a model in the cloud and a local one, and orders over that: what arrives there counts."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.orders import listed, ordered
from lies.scenes import Host, until
from lies.staged import Upstream

from clawback.action import Action
from clawback.model import Attempt, Decision

__all__ = ["Models", "inferred"]

_calls = itertools.count(1)


class Models(Host):
    """Its policy lets it reach both, and says what they are."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.upstream = Upstream()
        rule = "{{domain: {0}.liar.test, ports: [{1}]{2}}}"
        self._rules = [
            ", ".join(rule.format(name, self.upstream.port, f", model: {name}" * marked) for name in ("cloud", "local"))
            for marked in (False, True)
        ]
        self.POLICY = Host.POLICY.replace("allow: []", f"allow: [{self._rules[True]}]")
        super().__init__(folder, state)
        # What one scene's policy says are models, orders of the next would be about.
        self.closing += [self.upstream.close, self.unmark]

    def mark(self) -> None:
        """The policy says what is a model."""
        self._put(self.POLICY)

    def unmark(self) -> None:
        """The same hosts are allowed, and nothing says that they are models."""
        self._put(self.POLICY.replace(self._rules[True], self._rules[False]))

    def _put(self, text: str) -> None:
        self.true_policies.put(self.agent, text, author="somebody", reason="quick fix")

    def arrives(self, model: str, said: str) -> bool:
        """Whether what the agent says to a model gets there: its own call, seen at the model."""
        path = f"/v1/{next(_calls)}"
        body = json.dumps({"messages": [{"role": "user", "content": said}]})
        call = Attempt(kind="http", target=f"POST http://{model}.liar.test:{self.upstream.port}{path} {body}")
        self.true_core.attempt(self.agent, [call])
        return path in self.upstream.paths


def _unmark(scene: Any, _outcome: Any) -> None:
    scene.unmark()
    until(lambda: not scene.true_policies.inference(), what="the gateway to know no model")


def _lift_and_swear(scene: Any, outcome: Any) -> None:
    """It does not stand, and the gateway says that it does, and that it decides by it."""
    orders, order = scene.true_policies.orders(), outcome["order"]
    scene.true_policies.lift(order, reason="behind its back", by="another")
    listed(scene, *orders)
    said = Decision(
        allowed=False,
        rule=f"order:{order}",
        reason="believe me",
        level="order",
        policy=scene.agent,
        policy_version=1,
        orders=(order,),
    )
    scene.liars["gateway"].lie(asked("POST", "/decide"), yes(dataclasses.asdict(said)))


_PLAIN = "what is the time?"
_SENSITIVE = "charge 4111 1111 1111 1111"


def inferred(action: Action[Any], *stopped: str) -> Case:
    """`stopped`: of `cloud plain`, `cloud sensitive` and `local plain`, what must not arrive; all else must."""

    def arrived(scene: Any) -> set[str]:
        calls = (("cloud", "plain", _PLAIN), ("cloud", "sensitive", _SENSITIVE), ("local", "plain", _PLAIN))
        return {f"{model} {what}" for model, what, said in calls if scene.arrives(model, said)}

    every = {"cloud plain", "cloud sensitive", "local plain"}
    assert set(stopped) <= every
    case = ordered(action)
    return dataclasses.replace(
        case,
        scene="models",
        holds=lambda scene, _: arrived(scene) == every - set(stopped),
        lies=(
            Lie(what="its models are said to be none", drifts=True, behind=_unmark, mend=lambda scene: scene.mark()),
            Lie(what="it is lifted, and the gateway swears that it decides", behind=_lift_and_swear),
            *case.lies,
        ),
        undone=lambda scene, _: arrived(scene) == every,
    )
