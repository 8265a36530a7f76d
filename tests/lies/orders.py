"""What orders over the way out share: the gateway says placed, or lifted, and does nothing; somebody undoes it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.liar import Answer, Request

from clawback.action import Action, Context
from clawback.model import EgressOrder, OrderKind, Scope, ScopeKind

__all__ = ["listed", "ordered", "stands"]


def _placed(request: Request) -> Answer:
    """The order that was asked for, as if it stood."""
    said = json.loads(request.body)
    known = {field.name for field in dataclasses.fields(EgressOrder)}
    given = {key: value for key, value in said.items() if key in known}
    given |= {"id": request.path.rpartition("/")[2], "kind": OrderKind(said["kind"])}
    scope = Scope(ScopeKind(said["scope_kind"]), said["scope_value"])
    return yes({"order": dataclasses.asdict(EgressOrder(**{**given, "scope": scope})), "connections_reset": 0})


def stands(scene: Any, receipt: Any) -> bool:
    """By the gateway, past the liar."""
    return any(order.id == receipt.captured.get("order") for order in scene.true_policies.orders())


def listed(scene: Any, *orders: EgressOrder) -> None:
    """From now on the gateway says that these orders stand, and no others."""
    endpoints = [dataclasses.asdict(endpoint) for endpoint in scene.true_policies.inference()]
    told = {"orders": [dataclasses.asdict(order) for order in orders], "inference": endpoints, "held": {}}
    scene.liars["gateway"].lie(asked("GET", "/orders"), yes(told))


def _lift(scene: Any, outcome: Any) -> None:
    scene.true_policies.lift(outcome["order"], reason="behind its back", by="another")


def _lift_and_list(scene: Any, outcome: Any) -> None:
    orders = scene.true_policies.orders()
    _lift(scene, outcome)
    listed(scene, *orders)


def ordered(action: Action[Any], **denies: Any) -> Case:
    """One kind of order, for the scene's agent alone."""

    def place(scene: Any, _outcome: Any) -> None:
        incident = scene.journal.incident(scene.incident_id)
        step = incident.receipts[-1]
        context = Context(incident=incident, world=scene.world(), actor="another")
        action.apply(context, action.params.model_validate(step.params), step.captured)

    def place_and_hide(scene: Any, outcome: Any) -> None:
        others = scene.true_policies.orders()
        place(scene, outcome)
        listed(scene, *others)

    return Case(
        action=action,
        scene="host",
        params=lambda scene: {"of": scene.agent, "reason": "a lie suite", **denies},
        holds=stands,
        lies=(
            Lie(what="somebody lifts it", behind=_lift),
            Lie(what="it is lifted, and listed all the same", drifts=True, behind=_lift_and_list),
            Lie(
                what="the gateway says placed and does nothing",
                part="gateway",
                about=asked("PUT", "/orders/"),
                answer=_placed,
            ),
        ),
        reads=("gateway", "core"),
        undone=lambda scene, receipt: not stands(scene, receipt),
        revert_lies=(
            Lie(what="it is placed anew", behind=place),
            Lie(what="it is placed anew, and not listed", behind=place_and_hide),
            Lie(
                what="the gateway says lifted and does nothing",
                part="gateway",
                about=asked("POST", "/lift"),
                answer=yes({"lifted": None}),
            ),
        ),
        revert_reads=("gateway", "core"),
    )
