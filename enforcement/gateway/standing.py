"""The orders that stand over every policy: put, lifted, asked, and made true of what is open already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from clawback.enforcement.gateway.destinations import forms
from clawback.enforcement.gateway.order_store import OrderStore
from clawback.enforcement.gateway.policies import Judged
from clawback.enforcement.gateway.target import Target
from clawback.enforcement.policy.names import Address
from clawback.enforcement.policy.order_calls import INSPECTABLE, Content
from clawback.enforcement.policy.order_form import checked_endpoint
from clawback.enforcement.policy.orders import Asked, Orders, Ruling
from clawback.errors import Refused
from clawback.model import Decision, EgressOrder, InferenceEndpoint, InferenceKind, InferenceMode, OrderKind, Subject

__all__ = ["Standing", "above", "barred", "refused"]

_log = structlog.get_logger()


class Standing:
    """`on_change` closes what an order denies and gives how many connections that were.

    `inference` are the endpoints of the settings; `policies` gives those that the policies in force name.
    """

    def __init__(
        self,
        store: OrderStore,
        inference: Sequence[InferenceEndpoint],
        on_change: Callable[[], int],
        policies: Callable[[], tuple[InferenceEndpoint, ...]] = tuple,
    ) -> None:
        self._store = store
        self._policies = policies
        self._declared = tuple(
            checked_endpoint(one, f"gateway.inference[{number}]") for number, one in enumerate(inference)
        )
        self._on_change = on_change
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._orders = Orders()
        self._take()

    def all(self) -> tuple[EgressOrder, ...]:
        """Oldest first."""
        return self._store.all()

    @property
    def inference(self) -> tuple[InferenceEndpoint, ...]:
        """Where models are, as far as the settings and the policies in force say."""
        return tuple(dict.fromkeys((*self._declared, *self._policies())))

    def policies_changed(self) -> None:
        """A policy may name other endpoints now."""
        self._take()

    async def put(self, order: EgressOrder) -> tuple[EgressOrder, int]:
        """The order as it stands, and how many connections it ended. See `OrderStore.put`."""
        self._check_inference(order)
        # Not to be cancelled in the middle: what is written must be in force, whether or not its giver still listens.
        return await asyncio.shield(self._put(replace(order, placed_ns=time.time_ns())))

    async def lift(self, order: str, *, reason: str, by: str, uid: int) -> EgressOrder | None:
        """What was lifted; None where no such order stands."""
        return await asyncio.shield(self._lift(order, reason, by, uid))

    def ruling(
        self, subject: Subject, target: Target, content: Content | None = None, addresses: tuple[Address, ...] = ()
    ) -> Ruling:
        """What they say to one attempt."""
        return self._orders.decide(
            subject,
            Asked(
                host=target.host,
                port=target.port,
                method=target.method,
                path=target.path,
                addresses=addresses,
                content=content,
            ),
        )

    async def changed(self, seconds: float) -> None:
        """Wait for the next change, at most so long."""
        event = self._changed
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return

    async def _put(self, order: EgressOrder) -> tuple[EgressOrder, int]:
        async with self._one_at_a_time:
            standing = await asyncio.to_thread(self._store.put, order)
            self._take()
            ended = self._on_change()
        _log.warning(
            "order stands", order=order.id, denies=order.what, scope=str(order.scope), by=order.by, ended=ended
        )
        return standing, ended

    async def _lift(self, order: str, reason: str, by: str, uid: int) -> EgressOrder | None:
        async with self._one_at_a_time:
            lifted = await asyncio.to_thread(self._store.lift, order)
            self._take()
        if lifted is not None:
            _log.warning("order lifted", order=order, by=by, uid=uid, reason=reason)
        return lifted

    def _take(self) -> None:
        self._orders = Orders(self._store.all(), self.inference, forms)
        self._changed.set()
        self._changed = asyncio.Event()

    def _check_inference(self, order: EgressOrder) -> None:
        """An order that no endpoint is declared for would deny nothing, and would be taken for one that does."""
        if order.kind is not OrderKind.INFERENCE:
            return
        clouds = [one for one in self.inference if one.kind is InferenceKind.CLOUD]
        if not (self.inference if order.mode == InferenceMode.CUT else clouds):
            raise Refused(
                f"no {'' if order.mode == InferenceMode.CUT else 'cloud '}inference endpoint is declared",
                hint="list them under gateway.inference, or mark rules with `model:`; or block the destination",
            )


def above(ruling: Ruling, judged: Judged, target: Target) -> Judged:
    """The policy's judgement as far as the orders let it stand."""
    if ruling.denied:
        return Judged(refused(judged.decision, ruling.denied, ruling.why), ruling=ruling)
    if target.method == "CONNECT" and ruling.look:
        if judged.sealed:
            why = "an order looks into tunnels to this destination, and the policy says tls: skip"
            return Judged(refused(judged.decision, ruling.look, why), ruling=ruling)
        decision = judged.decision
        if decision.allowed and not decision.inspect:
            decision = replace(decision, inspect=True, reason=f"allowed by rule, looked into for {ruling.look[0].rule}")
        return replace(judged, decision=decision, ruling=ruling)
    if ruling.wants_body and not judged.wants_body and not judged.wants_caller:
        return replace(judged, ruling=ruling, wants_body=INSPECTABLE, any_body=True)
    return replace(judged, ruling=ruling)


def barred(judged: Judged) -> Decision:
    """The decision at the last moment before something leaves: an order that has yet to see it, or have it wait, and
    only now turned out to be for this place, refuses it.
    """
    ruling, decision = judged.ruling, judged.decision
    if decision.allowed and not decision.inspect and (ruling.held or ruling.wants_body):
        return refused(decision, ruling.stops, "an order is for where this leads, or came meanwhile: ask again")
    return decision


def refused(decision: Decision, orders: Sequence[EgressOrder], why: str) -> Decision:
    """A denial in the orders' name."""
    return replace(
        decision,
        allowed=False,
        rule=orders[0].rule,
        reason=why[:200],
        level="order",
        inspect=False,
        audit=False,
        orders=tuple(order.id for order in orders),
    )
