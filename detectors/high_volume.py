"""An agent reads far more from one place than it ever did: hundreds of requests, or much data, within ten minutes."""

from __future__ import annotations

from collections import OrderedDict, deque

from clawback.detector import Hit, detector
from clawback.model import HttpActivity, NetworkActivity, Severity

__all__ = ["DETECTOR"]

MINUTE_NS = 60 * 1_000_000_000
MINUTES = 10
REQUESTS = 500  # in a window; an agent that answers people makes tens
BYTES = 64 * 1024 * 1024  # received in a window; a dump, not a page
TIMES = 5  # as much as the busiest window before: growth that is no change of pace
_HOSTS = 256
_CONNECTIONS = 512


class Place:
    """One host, minute by minute: what was done in the last ten, and the busiest ten that were over before those."""

    __slots__ = ("busiest", "minutes", "sums", "uids")

    def __init__(self) -> None:
        self.minutes: deque[list[int]] = deque(maxlen=MINUTES)  # [minute, requests, bytes]
        self.sums: deque[tuple[int, int, int]] = deque(maxlen=MINUTES)  # what the last ten came to at a minute's end
        self.busiest = (0, 0)
        self.uids: deque[str] = deque(maxlen=8)

    def count(self, at_ns: int, requests: int, received: int) -> tuple[int, int]:
        """Add; the last ten minutes' requests and bytes. A clock that goes back counts in the latest minute."""
        minute = at_ns // MINUTE_NS
        if not self.minutes or minute > self.minutes[-1][0]:
            if self.minutes:
                self.sums.append((self.minutes[-1][0], *self.total))
            while self.sums and self.sums[0][0] <= minute - MINUTES:
                _, many, much = self.sums.popleft()
                self.busiest = (max(self.busiest[0], many), max(self.busiest[1], much))
            self.minutes.append([minute, 0, 0])
            while self.minutes[0][0] <= minute - MINUTES:
                self.minutes.popleft()
        self.minutes[-1][1] += requests
        self.minutes[-1][2] += received
        return self.total

    @property
    def total(self) -> tuple[int, int]:
        """Requests and bytes of the minutes that are kept."""
        return sum(one[1] for one in self.minutes), sum(one[2] for one in self.minutes)


class Places:
    """The hosts and connections used last."""

    __slots__ = ("connections", "hosts")

    def __init__(self) -> None:
        self.hosts: OrderedDict[str, Place] = OrderedDict()
        self.connections: OrderedDict[str, int] = OrderedDict()

    def at(self, host: str) -> Place:
        """The host's account, opened now if there is none."""
        place = self.hosts.pop(host, None) or Place()
        self.hosts[host] = place
        if len(self.hosts) > _HOSTS:
            self.hosts.popitem(last=False)
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
    place = places.at(name)
    if isinstance(event, HttpActivity):
        requests, received = place.count(event.time_ns, 1, 0)
    else:
        requests, received = place.count(event.time_ns, 0, places.growth(event.connection or name, event.bytes_in))
    place.uids.append(event.uid)
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
