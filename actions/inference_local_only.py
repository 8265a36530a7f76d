"""Route inference locally only: declared inference endpoints in the cloud are refused."""

from __future__ import annotations

from clawback.actions._orders import ScopedParams, order_action
from clawback.model import InferenceMode, OrderKind

__all__ = ["ACTION"]

ACTION = order_action(
    id="inference.local-only",
    kind=OrderKind.INFERENCE,
    summary="Refuse the agents in scope every declared inference endpoint in the cloud; local ones stay.",
    scope="requests of the agents in scope to the cloud endpoints in gateway.inference",
    d3fend="D3-OTF",
    params=ScopedParams,
    denies=lambda _params: {"mode": InferenceMode.LOCAL_ONLY.value},
)
