"""Level 2: cut an agent off. Nothing established survives and nothing new starts; release opens the way again.

The sandbox's network namespace has one interface, loopback, and one way out, the gateway's listener on it. So: take the
loopback addresses away (a connect then fails at once with ENETUNREACH; with the interface down alone it would time out,
since local routes stay), take the interface down, and destroy every socket but that listener. In this order: destroyed
first, an agent would have reconnected before its addresses were gone. Then look for what the network never was between:
descriptors that lead out. On a kernel without sock_diag no socket is listed or destroyed, and the level is partial.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from clawback.enforcement.kernel import netlink
from clawback.enforcement.quarantine import inside, mounted, tree, ways_out
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import GATEWAY_PORT, Sandbox
from clawback.model import Level, LevelResult

__all__ = ["apply", "probe", "release"]

_ENDED = "the sandbox has ended: its network namespace has no process"
_UNLISTED = (
    "sockets made before: this kernel has no sock_diag, by which they would be destroyed and Unix sockets' peers known"
)
_KINDS = (inside.ROUTE, inside.TCP4, inside.TCP6)
_LOOPBACK = (
    netlink.Address(socket.AF_INET, 1, 8, socket.inet_pton(socket.AF_INET, "127.0.0.1")),
    netlink.Address(socket.AF_INET6, 1, 128, socket.inet_pton(socket.AF_INET6, "::1")),
)
"""What a namespace's first interface, loopback, carries when it is up."""
_REFUSALS = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EAFNOSUPPORT})


def apply(box: Sandbox, *, own: frozenset[str] | None = None, patience: float = 1.0) -> LevelResult:
    """Cut, then look from inside. Works on a frozen tree and on a running one. `patience` in seconds.

    `own`: what the shim has open, for a caller who has joined the agent's user namespace and sees nobody outside any
    more; it shuts down no socket either, not knowing who else uses it.
    """
    clock = Clock(Level.ISOLATE)
    try:
        with _opened(box) as (route, tcp4, tcp6, diag):
            left, refused = _cut(route, diag, patience)
            mounts = mounted.view(box)
            ways = ways_out.found(box, diag, ways_out.shims(box) if own is None else own, mounts)
            if own is None:
                ways = ways_out.shut(ways, box)
            seen = _look(route, tcp4, tcp6, left, ways=ways, bound=ways_out.reachable(box, mounts))
            return _judge(seen, clock, *refused, listed=diag is not None)
    except ProcessLookupError:
        return _ended(box, clock)
    except OSError as error:
        return clock.none(f"the network namespace could not be cut: {error.strerror}", "every part of isolation")


def probe(box: Sandbox, *, own: frozenset[str] | None = None) -> LevelResult:
    """From inside: connects to the gateway fail at once, no address is left, no socket has a peer."""
    clock = Clock(Level.ISOLATE)
    try:
        with _opened(box) as (route, tcp4, tcp6, diag):
            mounts = mounted.view(box)
            ways = ways_out.found(box, diag, ways_out.shims(box) if own is None else own, mounts)
            there = netlink.sockets(diag) if diag else ()
            seen = _look(route, tcp4, tcp6, there, ways=ways, bound=ways_out.reachable(box, mounts))
            return _judge(seen, clock, listed=diag is not None)
    except ProcessLookupError:
        return _ended(box, clock)
    except OSError as error:
        return clock.none(f"the network namespace could not be read: {error.strerror}", "the proof of isolation")


def release(box: Sandbox) -> LevelResult:
    """Loopback up again, by which the kernel gives it its addresses back; then connect to the gateway from inside."""
    clock = Clock(Level.ISOLATE)
    try:
        with inside.opened(box, _KINDS) as (route, tcp4, tcp6):
            for link in netlink.links(route):
                netlink.set_link(route, link.index, up=True)
            seen = _look(route, tcp4, tcp6, (), reach=True)
    except ProcessLookupError:
        result = _ended(box, clock)
        return clock.none(result.observed) if not result.missing else result
    except OSError as error:
        # How much of it holds was not seen: neither that all of it does, nor that nothing does.
        return clock.partial(f"loopback could not be raised: {error.strerror}", "the proof of what still holds")
    if seen.reached:
        return clock.none(f"connect from inside reaches the gateway's listener on {' and '.join(seen.reached)}")
    if seen.addresses:
        return clock.none(f"loopback is up again; nothing listens on port {GATEWAY_PORT} ({_tried(seen)})")
    return clock.full(f"connect from inside still fails: {_tried(seen)}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """`outcomes` maps each address tried to an errno's name, `connected` or `no answer`; `ways` and `bound` lead out
    past the network.
    """

    addresses: tuple[netlink.Address, ...]
    flows: tuple[netlink.InetSocket, ...]
    outcomes: dict[str, str]
    ways: tuple[ways_out.Way, ...]
    bound: tuple[str, ...]

    @property
    def reached(self) -> list[str]:
        return [address for address, outcome in self.outcomes.items() if outcome == "connected"]


@contextmanager
def _opened(box: Sandbox) -> Iterator[tuple[socket.socket, socket.socket, socket.socket, socket.socket | None]]:
    """Inside the network namespace: for routes, for a connect by each family, and sock_diag's where there is one."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(inside.opened(box, (*_KINDS, inside.DIAG)))
        except OSError as error:
            if error.errno != errno.EPROTONOSUPPORT:
                raise
            made = stack.enter_context(inside.opened(box, _KINDS))
        route, tcp4, tcp6, *diag = made
        yield route, tcp4, tcp6, diag[0] if diag else None


def _cut(
    route: socket.socket, diag: socket.socket | None, patience: float
) -> tuple[tuple[netlink.InetSocket, ...], list[str]]:
    """The sockets that are left, and what the kernel refused to destroy, in words."""
    netlink.withdraw(route, _LOOPBACK, (1,))  # at once, unread: nothing passes from here on
    refused: dict[str, int] = {}
    left: tuple[netlink.InetSocket, ...] = ()
    for _ in tree.until(patience):
        netlink.withdraw(route, netlink.addresses(route), [link.index for link in netlink.links(route) if link.up])
        if diag is None:
            break
        left = netlink.sockets(diag)
        doomed = [one for one in left if not _gateways(one) and (one.listening or one.connected)]
        if not doomed:
            return left, []
        refused = netlink.destroy(diag, doomed)
    return left, [f"{number} sockets not destroyed: {name}" for name, number in refused.items()]


def _gateways(one: netlink.InetSocket) -> bool:
    """The listener that release needs. It was bound before the agent's first instruction, and its port is taken."""
    return one.listening and one.local_port == GATEWAY_PORT and one.local in {"127.0.0.1", "::1", "::", "0.0.0.0"}


def _look(
    route: socket.socket,
    tcp4: socket.socket,
    tcp6: socket.socket,
    there: tuple[netlink.InetSocket, ...],
    *,
    ways: tuple[ways_out.Way, ...] = (),
    bound: Sequence[str] = (),
    reach: bool = False,
) -> _Seen:
    """What a connect from inside comes to, and what of `there` has a peer. `reach` waits for one that does not fail."""
    outcomes = {"127.0.0.1": _connect(tcp4, "127.0.0.1", reach=reach), "::1": _connect(tcp6, "::1", reach=reach)}
    return _Seen(
        addresses=netlink.addresses(route),
        flows=tuple(one for one in there if one.connected and one.state != netlink.TIME_WAIT),
        outcomes=outcomes,
        ways=ways,
        bound=tuple(bound),
    )


def _connect(probe: socket.socket, address: str, *, reach: bool) -> str:
    probe.setblocking(False)
    code = probe.connect_ex((address, GATEWAY_PORT))
    if code == errno.EINPROGRESS:
        if not select.select([], [probe], [], 1.0 if reach else 0.01)[1]:
            return "no answer"
        code = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode.get(code, str(code)) if code else "connected"


def _judge(seen: _Seen, clock: Clock, *refused: str, listed: bool) -> LevelResult:
    missing = list(refused)
    missing += [f"address {address.text} is still there" for address in seen.addresses]
    missing += [
        f"connect from inside to {address}: {outcome}"
        for address, outcome in seen.outcomes.items()
        if not _dead(outcome)
    ]
    if seen.flows:
        missing.append(f"{len(seen.flows)} sockets still have a peer")
    clock.count(uncut=len(missing), drift=len(missing))
    missing += [*ways_out.named(seen.ways), *seen.bound, *[_UNLISTED] * (not listed)]
    observed = f"connect from inside: {_tried(seen)}; {len(seen.addresses)} addresses"
    observed += f", {len(seen.flows)} connections left" if listed else " left"
    clock.count(addresses=len(seen.addresses), leads_out=len(seen.ways) + len(seen.bound))
    if listed:
        clock.count(connections=len(seen.flows))
    nothing_holds = len(seen.addresses) > 0 and len(seen.reached) > 0
    return clock.judged(observed, tuple(missing), anything=not nothing_holds)


def _dead(outcome: str) -> bool:
    return getattr(errno, outcome, None) in _REFUSALS


def _tried(seen: _Seen) -> str:
    return ", ".join(f"{address} {outcome}" for address, outcome in seen.outcomes.items())


def _ended(box: Sandbox, clock: Clock) -> LevelResult:
    for _ in tree.until(0.5):  # with its first process the whole pid namespace ends, a moment later
        if tree.gone(box):
            return clock.full(_ENDED)
    return clock.none("the sandbox's first process is gone and others are alive", "every part of isolation")
