"""Cut inference: no declared inference endpoint, local or in the cloud, is reached."""

from __future__ import annotations

from clawback.actions._orders import ScopedParams, order_action
from clawback.model import InferenceMode, OrderKind

__all__ = ["ACTION"]

ACTION = order_action(
    id="inference.cut",
    kind=OrderKind.INFERENCE,
    summary="Cut the agents in scope off every declared inference endpoint.",
    scope="requests of the agents in scope to the endpoints in gateway.inference",
    d3fend="D3-OTF",
    params=ScopedParams,
    denies=lambda _params: {"mode": InferenceMode.CUT.value},
)
