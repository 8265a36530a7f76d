"""Gateway orders that decide as the gateway's do."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import urlsplit

from clawback.enforcement.policy.order_calls import Content
from clawback.enforcement.policy.order_form import checked
from clawback.enforcement.policy.orders import Asked, Orders
from clawback.errors import Unreachable
from clawback.model import Attempt, Decision, EgressOrder, InferenceEndpoint, InferenceKind, Subject

__all__ = ["MemoryOrders"]


class MemoryOrders:
    """Orders that decide as the gateway's do. `lies` makes `place` and `lift` answer and do nothing; `idle` has what
    stands decide nothing.
    """

    def __init__(self) -> None:
        self.standing: dict[str, EgressOrder] = {}
        self.endpoints: tuple[InferenceEndpoint, ...] = (
            InferenceEndpoint(host="api.cloud.test", kind=InferenceKind.CLOUD),
            InferenceEndpoint(host="gpu.internal.test", kind=InferenceKind.LOCAL, port=8000),
        )
        self.lies = False
        self.idle = False
        self.down = False

    def _ask(self) -> None:
        if self.down:
            raise Unreachable("the gateway does not answer")

    def place(self, order: EgressOrder) -> tuple[EgressOrder, int]:
        self._ask()
        order = replace(checked(order), placed_ns=time.time_ns())
        if self.lies:
            return order, 0
        return self.standing.setdefault(order.id, order), 0

    def orders(self) -> tuple[EgressOrder, ...]:
        self._ask()
        return tuple(self.standing.values())

    def lift(self, order: str, *, reason: str, by: str) -> EgressOrder | None:
        self._ask()
        return self.standing.get(order) if self.lies else self.standing.pop(order, None)

    def held(self) -> dict[str, int]:
        self._ask()
        return {}

    def inference(self) -> tuple[InferenceEndpoint, ...]:
        self._ask()
        return self.endpoints

    def decide(self, policy: str, attempt: Attempt, *, subject: Subject | None = None) -> Decision:
        """`http` targets are `METHOD http://HOST:PORT/PATH BODY`."""
        self._ask()
        method, _, rest = ("CONNECT " + attempt.target if attempt.kind == "connect" else attempt.target).partition(" ")
        url, _, body = rest.partition(" ")
        parts = urlsplit(url if "//" in url else f"//{url}")
        asked = Asked(
            host=parts.hostname or "",
            port=parts.port or 80,
            method=method,
            path=parts.path,
            content=Content(body.encode(), parts.path) if method != "CONNECT" else None,
        )
        everybody = Subject(agent="", tenant="", team="", tags=())
        found = Orders(() if self.idle else self.standing.values(), self.endpoints).decide(subject or everybody, asked)
        said = Decision(allowed=True, rule="", reason="", policy=policy, policy_version=1)
        if not (found.denied or found.held):
            return said
        names = found.denied or found.held
        why = found.why if found.denied else "it would be held"
        return replace(
            said,
            allowed=False,
            rule=names[0].rule,
            reason=why,
            level="order",
            orders=tuple(one.id for one in names),
        )
