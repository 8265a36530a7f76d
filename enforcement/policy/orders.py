"""Decides one attempt by the orders that stand: pure, and above every policy. An order only ever denies.

An order that looks at requests needs TLS to end in the gateway (`look`), and one that looks into bodies needs the body
(`wants_body`). Whoever acts on it and cannot give what is needed refuses in the order's name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from clawback.enforcement.policy.contents import ContentError
from clawback.enforcement.policy.names import Address, AmbiguousError, address_of, normal_path, path_glob
from clawback.enforcement.policy.order_calls import Content
from clawback.enforcement.policy.order_form import Network, network_of
from clawback.model import (
    EgressOrder,
    InferenceEndpoint,
    InferenceKind,
    InferenceMode,
    OrderKind,
    Scope,
    ScopeKind,
    Subject,
)

__all__ = ["NOTHING", "Asked", "Orders", "Ruling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One attempt: `host` is normal, `path` as sent, empty for CONNECT. `addresses` are where the host leads, as far as
    that is known; `content` is the request's, once it has been read.
    """

    host: str
    port: int
    method: str
    path: str = ""
    addresses: tuple[Address, ...] = ()
    content: Content | None = None


class Ruling(NamedTuple):
    """What the orders say to one attempt. All empty: nothing.

    denied       those that refuse it, oldest first; `why` is the first one's reason, for the agent
    look         those for which TLS must end in the gateway, of a tunnel
    reads        those that look into what a request carries; without a body yet, it is asked for (`wants_body`)
    held         those that have it wait, for what was `found` in it
    endpoint     the inference endpoint that an order was applied to
    """

    denied: tuple[EgressOrder, ...] = ()
    why: str = ""
    look: tuple[EgressOrder, ...] = ()
    reads: tuple[EgressOrder, ...] = ()
    wants_body: bool = False
    held: tuple[EgressOrder, ...] = ()
    found: tuple[str, ...] = ()
    endpoint: InferenceEndpoint | None = None

    @property
    def stops(self) -> tuple[EgressOrder, ...]:
        """Those by which what has begun may not go on: it is refused, would wait, or cannot be seen."""
        return self.denied or self.held or self.look or (self.reads if self.wants_body else ())


NOTHING = Ruling()
_MOST_KNOWN = 1024


@dataclass(slots=True)
class _Bucket:
    """Orders of one scope, by host."""

    named: dict[str, list[EgressOrder]] = field(default_factory=dict)
    below: dict[str, list[EgressOrder]] = field(default_factory=dict)  # by what follows `*.`
    networks: list[tuple[Network, EgressOrder]] = field(default_factory=list)
    anywhere: list[EgressOrder] = field(default_factory=list)

    def add(self, order: EgressOrder) -> None:
        if order.host in ("", "*"):
            self.anywhere.append(order)
        elif (network := network_of(order.host)) is not None:
            self.networks.append((network, order))
        elif order.host.startswith("*."):
            self.below.setdefault(order.host[2:], []).append(order)
        else:
            self.named.setdefault(order.host, []).append(order)

    def meant(self, host: str, addresses: Sequence[Address]) -> Iterator[EgressOrder]:
        yield from self.anywhere
        yield from self.named.get(host, ())
        if self.below:
            rest = host
            while rest := rest.partition(".")[2]:
                yield from self.below.get(rest, ())
        for network, order in self.networks if addresses else ():
            if _within(network, addresses):
                yield order


class Orders:
    """All that stand, sorted so that most need not be looked at. `inference`: the declared endpoints, in one spelling.

    `forms` gives, of an address, those that it carries inside as well.
    """

    def __init__(
        self,
        orders: Iterable[EgressOrder] = (),
        inference: Sequence[InferenceEndpoint] = (),
        forms: Callable[[Address], tuple[Address, ...]] = lambda address: (address,),
    ) -> None:
        self._inference = tuple((endpoint, network_of(endpoint.host)) for endpoint in inference)
        self._forms = forms
        self._buckets: dict[Scope, _Bucket] = {}
        self._known: dict[Subject, tuple[_Bucket, ...]] = {}
        for order in sorted(orders, key=lambda order: (order.placed_ns, order.id)):
            self._buckets.setdefault(order.scope, _Bucket()).add(order)

    def decide(self, subject: Subject, asked: Asked) -> Ruling:
        """What they say to an agent's attempt."""
        if not self._buckets:
            return NOTHING
        literal = address_of(asked.host)
        known = (*((literal,) if literal is not None else ()), *asked.addresses)
        addresses = tuple(form for address in known for form in self._forms(address))
        case = _Case(asked, addresses, self._inference)
        found = [
            order
            for bucket in self._meaning(subject)
            for order in bucket.meant(asked.host, addresses)
            if order.port in (0, asked.port)
        ]
        if not found:
            return NOTHING
        for order in sorted(found, key=lambda order: (order.placed_ns, order.id)):
            case.take(order)
        return case.ruling()

    def _meaning(self, subject: Subject) -> tuple[_Bucket, ...]:
        """Those for an agent; found once, as it asks again and again."""
        if subject not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[subject] = tuple(self._of(subject))
        return self._known[subject]

    def _of(self, subject: Subject) -> Iterator[_Bucket]:
        if len(self._buckets) <= 4 or None in (subject.tenant, subject.team, subject.tags):
            yield from (bucket for scope, bucket in self._buckets.items() if scope.covers(subject))
            return
        scopes = [Scope(ScopeKind.ALL), Scope(ScopeKind.AGENT, subject.agent)]
        scopes += [Scope(ScopeKind.TENANT, subject.tenant or ""), Scope(ScopeKind.TEAM, subject.team or "")]
        scopes += [Scope(ScopeKind.TAG, tag) for tag in dict.fromkeys(subject.tags or ())]
        yield from (self._buckets[scope] for scope in scopes if scope in self._buckets)


class _Case:
    """One attempt before each order that is for its place."""

    def __init__(
        self,
        asked: Asked,
        addresses: tuple[Address, ...],
        inference: Sequence[tuple[InferenceEndpoint, Network | None]],
    ) -> None:
        self._asked = asked
        self._addresses = addresses
        self._inference = inference
        self._method = asked.method.upper()
        self._tunnel = self._method == "CONNECT"
        self._denied: list[EgressOrder] = []
        self._look: list[EgressOrder] = []
        self._reads: list[EgressOrder] = []
        self._held: list[EgressOrder] = []
        self._why = ""
        self._endpoint: InferenceEndpoint | None = None

    def ruling(self) -> Ruling:
        content = self._asked.content
        return Ruling(
            denied=tuple(self._denied),
            why=self._why,
            look=tuple(self._look),
            reads=tuple(self._reads),
            wants_body=bool(self._reads) and content is None,
            held=tuple(self._held),
            found=content.sensitive if self._held and content is not None else (),
            endpoint=self._endpoint,
        )

    def take(self, order: EgressOrder) -> None:
        match order.kind:
            case OrderKind.DESTINATION | OrderKind.DAMAGED:
                self._deny(order)
            case OrderKind.CONNECTOR if not order.path:
                self._deny(order)
            case OrderKind.INFERENCE:
                self._take_inference(order)
            case _ if self._tunnel:
                self._look.append(order)
            case OrderKind.CONNECTOR:
                if self._fits(order, order.path):
                    self._deny(order)
            case _ if order.tool:
                self._take_tool(order)
            case _:
                if order.method in ("*", self._method) and self._fits(order, order.path, pattern=True):
                    self._deny(order)

    def _take_tool(self, order: EgressOrder) -> None:
        self._reads.append(order)
        if self._asked.content is None:
            return
        try:
            if any(_named(order.tool.casefold()).fullmatch(call) for call in self._asked.content.calls):
                self._deny(order)
        except ContentError as error:
            self._deny(order, f"a tool is denied, and this may call it: {error}")

    def _take_inference(self, order: EgressOrder) -> None:
        for endpoint, network in self._inference:
            if order.mode != InferenceMode.CUT and endpoint.kind is not InferenceKind.CLOUD:
                continue
            if not self._leads_to(endpoint, network):
                continue
            reads = order.mode == InferenceMode.QUEUE_SENSITIVE
            if self._tunnel and (endpoint.path or reads):
                self._look.append(order)
            elif self._tunnel or not endpoint.path or self._fits(order, endpoint.path):
                if not reads:
                    self._deny(order)
                elif order not in self._denied:
                    self._read_prompt(order)
            else:
                continue  # another endpoint may be for this path
            self._endpoint = self._endpoint or endpoint
            return

    def _leads_to(self, endpoint: InferenceEndpoint, network: Network | None) -> bool:
        asked = self._asked
        if endpoint.port not in (0, asked.port):
            return False
        if network is not None:
            return _within(network, self._addresses)
        if endpoint.host.startswith("*."):
            return asked.host.endswith(endpoint.host[1:])
        return asked.host == endpoint.host

    def _read_prompt(self, order: EgressOrder) -> None:
        self._reads.append(order)
        if self._asked.content is not None and self._asked.content.sensitive:
            self._held.append(order)

    def _fits(self, order: EgressOrder, wanted: str, *, pattern: bool = False) -> bool:
        """Whether the path is meant, not telling case apart: there are servers that do not. Denied where it can be read
        in more than one way.
        """
        try:
            path = normal_path(self._asked.path).casefold()
        except AmbiguousError as error:
            self._deny(order, str(error))
            return False
        wanted = wanted.casefold()
        if pattern:
            return any(path_glob(wanted).fullmatch(one) for one in (path, path.rstrip("/")))
        return path == wanted or path.startswith(f"{wanted}/")

    def _deny(self, order: EgressOrder, why: str = "") -> None:
        self._denied.append(order)
        self._why = self._why or why or f"{order.what} is denied by an order"


def _within(network: Network, addresses: Iterable[Address]) -> bool:
    return any(address.version == network.version and address in network for address in addresses)


@lru_cache(maxsize=4096)
def _named(pattern: str) -> re.Pattern[str]:
    """`*` and `?` alone are no letters: a bracket in a tool's name is a bracket."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))
