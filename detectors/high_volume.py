"""An agent reads far more from one place than it ever did: hundreds of requests, or much data, within ten minutes."""

from __future__ import annotations

from collections import OrderedDict, deque

from clawback.detector import Hit, detector
from clawback.model import HttpActivity, NetworkActivity, Severity

__all__ = ["DETECTOR"]

WINDOW_NS = 10 * 60 * 1_000_000_000
REQUESTS = 500  # in a window; an agent that answers people makes tens
BYTES = 64 * 1024 * 1024  # received in a window; a dump, not a page
TIMES = 5  # as much as the busiest window before: growth that is no change of pace
_HOSTS = 256
_CONNECTIONS = 512


class Place:
    """One host: the window under way, and the busiest of those before it, as (requests, bytes)."""

    __slots__ = ("began", "busiest", "now", "uids")

    def __init__(self, at_ns: int) -> None:
        self.began = at_ns
        self.now = [0, 0]
        self.busiest = (0, 0)
        self.uids: deque[str] = deque(maxlen=8)

    def roll(self, at_ns: int) -> None:
        """Begin a new window when the present one is over."""
        if 0 <= at_ns - self.began < WINDOW_NS:
            return
        self.busiest = (max(self.busiest[0], self.now[0]), max(self.busiest[1], self.now[1]))
        self.began, self.now = at_ns, [0, 0]


class Places:
    """The hosts and connections used last."""

    __slots__ = ("connections", "hosts")

    def __init__(self) -> None:
        self.hosts: OrderedDict[str, Place] = OrderedDict()
        self.connections: OrderedDict[str, int] = OrderedDict()

    def at(self, host: str, at_ns: int) -> Place:
        """The host's account, opened now if there is none."""
        place = self.hosts.pop(host, None) or Place(at_ns)
        self.hosts[host] = place
        if len(self.hosts) > _HOSTS:
            self.hosts.popitem(last=False)
        place.roll(at_ns)
        return place

    def growth(self, connection: str, received: int) -> int:
        """How much a connection's total grew since its last report."""
        before = self.connections.pop(connection, 0)
        self.connections[connection] = max(received, before)
        if len(self.connections) > _CONNECTIONS:
            self.connections.popitem(last=False)
        return max(0, received - before)


@detector(
    id="access.high-volume",
    title="High-volume access",
    reads={NetworkActivity, HttpActivity},
    severity=Severity.HIGH,
    technique="T1530",
    attack=("T1530", "T1213"),
    atlas=("AML.T0085", "AML.T0036"),
    asi=("ASI02", "ASI10"),
    seed_asi=("ASI-09",),
    memory=Places,
)
def high_volume(event: NetworkActivity | HttpActivity, places: Places) -> Hit | None:
    """Allowed access only, by host: 500 requests or 64 MiB received in ten minutes, and five times the busiest window
    that the agent had there before; how many requests are many, only a window before can tell. Work may have grown, so
    it asks for no reflex and waits for a person.
    """
    if event.blocked:
        return None
    name = event.host.lower().rstrip(".")
    place = places.at(name, event.time_ns)
    if isinstance(event, HttpActivity):
        place.now[0] += 1
    else:
        place.now[1] += places.growth(event.connection or name, event.bytes_in)
    place.uids.append(event.uid)
    requests, received = place.now
    many = requests >= REQUESTS and requests > TIMES * place.busiest[0] > 0
    much = received >= BYTES and received > TIMES * place.busiest[1]
    if not (many or much):
        return None
    return Hit(
        resource=f"{name}:{event.port}",
        summary=f"{requests} requests and {received} bytes received from {name}:{event.port} within ten minutes",
        events=tuple(place.uids)[:-1],
        attempts=(),
    )


DETECTOR = high_volume
