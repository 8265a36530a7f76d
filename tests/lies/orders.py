"""What orders over the way out share: the gateway says placed, or lifted, and does nothing; somebody lifts it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from lies.answers import asked, yes
from lies.case import Case, Lie
from lies.liar import Answer, Request

from clawback.action import Action
from clawback.model import EgressOrder, OrderKind, Scope, ScopeKind

__all__ = ["ordered"]


def _placed(request: Request) -> Answer:
    """The order that was asked for, as if it stood."""
    said = json.loads(request.body)
    known = {field.name for field in dataclasses.fields(EgressOrder)}
    given = {key: value for key, value in said.items() if key in known}
    given |= {"id": request.path.rpartition("/")[2], "kind": OrderKind(said["kind"])}
    scope = Scope(ScopeKind(said["scope_kind"]), said["scope_value"])
    return yes({"order": dataclasses.asdict(EgressOrder(**{**given, "scope": scope})), "connections_reset": 0})


def _lift(scene: Any, outcome: Any) -> None:
    scene.true_policies.lift(outcome["order"], reason="behind its back", by="another")


def _stands(scene: Any, receipt: Any) -> bool:
    return any(order.id == receipt.captured.get("order") for order in scene.true_policies.orders())


def ordered(action: Action[Any], **denies: Any) -> Case:
    """One kind of order, for the scene's agent alone."""
    return Case(
        action=action,
        scene="host",
        params=lambda scene: {"of": scene.agent, "reason": "a lie suite", **denies},
        holds=_stands,
        lies=(
            Lie(what="somebody lifts it", behind=_lift),
            Lie(
                what="the gateway says placed and does nothing",
                part="gateway",
                about=asked("PUT", "/orders/"),
                answer=_placed,
            ),
        ),
        reads=("gateway", "core"),
        undone=lambda scene, receipt: not _stands(scene, receipt),
        revert_lies=(
            Lie(
                what="the gateway says lifted and does nothing",
                part="gateway",
                about=asked("POST", "/lift"),
                answer=yes({"lifted": None}),
            ),
        ),
        revert_reads=("gateway",),
    )
