"""An agent sends a volume of data to a host that it has only just begun to talk to."""

from __future__ import annotations

from collections import OrderedDict

from clawback.detector import Hit, detector
from clawback.model import HttpActivity, Level, NetworkActivity, Severity

__all__ = ["DETECTOR"]

VOLUME = 256 * 1024  # bytes; prompts and API calls of ordinary agents stay under it, source trees and dumps do not
RATIO = 4  # times more out than in: an upload, not a conversation
KNOWN_AFTER_NS = 10 * 60 * 1_000_000_000  # a host first reached that long ago is the agent's habit
_HOSTS = 256
_CONNECTIONS = 512


class Destination:
    """What one host got and gave, as connections report it and, separately, as requests do: both may tell of one."""

    __slots__ = ("connections_in", "connections_out", "first_ns", "requests_in", "requests_out")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.connections_out = self.connections_in = self.requests_out = self.requests_in = 0

    @property
    def total(self) -> tuple[int, int]:
        """Bytes out and in, by whichever report knows of more."""
        return max((self.connections_out, self.connections_in), (self.requests_out, self.requests_in))


class Baseline:
    """The hosts and connections that the agent used last. What falls out counts as new again: the stricter side."""

    __slots__ = ("connections", "hosts")

    def __init__(self) -> None:
        self.hosts: OrderedDict[str, Destination] = OrderedDict()
        self.connections: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def host(self, name: str, at_ns: int) -> Destination:
        """The host's account, opened now if there is none."""
        found = self.hosts.get(name)
        if found is None:
            found = self.hosts[name] = Destination(at_ns)
            if len(self.hosts) > _HOSTS:
                self.hosts.popitem(last=False)
        else:
            self.hosts.move_to_end(name)
        return found

    def growth(self, connection: str, out: int, into: int) -> tuple[int, int]:
        """How much a connection's totals grew since its last report; a total that shrinks grows by nothing."""
        before_out, before_in = self.connections.pop(connection, (0, 0))
        self.connections[connection] = (max(out, before_out), max(into, before_in))
        if len(self.connections) > _CONNECTIONS:
            self.connections.popitem(last=False)
        return max(0, out - before_out), max(0, into - before_in)


@detector(
    id="exfiltration.new-destination",
    title="Upload to a new destination",
    reads={NetworkActivity, HttpActivity},
    severity=Severity.CRITICAL,
    technique="T1567",
    reflex=Level.ISOLATE,
    attack=("T1567", "T1041", "T1048"),
    atlas=("AML.T0086", "AML.T0025"),
    asi=("ASI02", "ASI10"),
    seed_asi=("ASI-09",),
    memory=Baseline,
)
def new_destination(event: NetworkActivity | HttpActivity, seen: Baseline) -> Hit | None:
    """Sums over all of the agent's connections to a host, so that slicing an upload does not hide it. Within ten
    minutes of the first contact, 256 KiB sent and four times more sent than received is a hit. A host that the agent
    has used for longer is its policy's matter, not this detector's.
    """
    if event.blocked:
        return None
    name = event.host.lower().rstrip(".")
    account = seen.host(name, event.time_ns)
    if isinstance(event, NetworkActivity):
        out, into = seen.growth(event.connection or name, event.bytes_out, event.bytes_in)
        account.connections_out += out
        account.connections_in += into
    else:
        account.requests_out += event.bytes_out
        account.requests_in += event.bytes_in
    sent, received = account.total
    if sent < VOLUME or sent <= RATIO * received or event.time_ns - account.first_ns > KNOWN_AFTER_NS:
        return None
    target = f"{name}:{event.port}"
    return Hit(
        resource=target,
        summary=f"{sent} bytes sent to {target} and {received} received, {_age(event.time_ns - account.first_ns)}",
        attempts=(("connect", target),),
    )


def _age(nanoseconds: int) -> str:
    return f"{max(0, nanoseconds) / 1e9:.1f} s after the first contact"


DETECTOR = new_destination
