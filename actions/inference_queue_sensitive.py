"""Queue sensitive prompts: what is found sensitive on its way to cloud inference waits, and is refused in the end."""

from __future__ import annotations

from clawback.actions._orders import ScopedParams, order_action
from clawback.model import InferenceMode, OrderKind

__all__ = ["ACTION"]

ACTION = order_action(
    id="inference.queue-sensitive",
    kind=OrderKind.INFERENCE,
    summary="Hold requests to cloud inference that are found sensitive; none is sent on while the order stands.",
    scope="requests of the agents in scope to the cloud endpoints in gateway.inference",
    d3fend="D3-OTF",
    params=ScopedParams,
    denies=lambda _params: {"mode": InferenceMode.QUEUE_SENSITIVE.value},
)
