"""A private network for a rehearsal: a loopback of its own, and a sink in another namespace that counts bytes."""

from __future__ import annotations

import fcntl
import mmap
import socket
import struct
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from clawback.errors import Unreachable
from clawback.services.process import Service

__all__ = ["Sink", "loopback_up"]

# TEST-NET-2 (RFC 5737): routed nowhere, and here only between two namespaces of our own.
NEAR, FAR, PREFIX = "198.51.100.1", "198.51.100.2", 30
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def loopback_up() -> None:
    """Bring up `lo` of the present network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


class Sink:
    """The far end. `address` is where it listens (port 443), `received` and `last_ns` what its counters say."""

    address = FAR

    def __init__(self, folder: Path) -> None:
        self._counters = folder / "sink"
        self._counters.write_bytes(bytes(16))
        with self._counters.open("r+b") as file:
            self._totals = mmap.mmap(file.fileno(), 16)
        self._service = Service(
            "sink",
            [sys.executable, "-m", "clawback.drills.sink", self._counters],
            log=folder / "log" / "sink.log",
            piped=True,
        )

    @property
    def received(self) -> int:
        """Bytes so far."""
        return int(struct.unpack_from("<Q", self._totals, 0)[0])

    @property
    def last_ns(self) -> int:
        """Monotonic time of the last of them, ns."""
        return int(struct.unpack_from("<Q", self._totals, 8)[0])

    def start(self) -> Self:
        """Start it, join its namespace to ours by a pair of interfaces, and wait until it listens."""
        from pyroute2 import IPRoute

        self._service.start()
        self._expect("ready")
        with IPRoute() as near:
            near.link("add", ifname="sink0", kind="veth", peer={"ifname": "eth0", "net_ns_pid": self._service.pid})
            index = near.link_lookup(ifname="sink0")[0]
            near.addr("add", index=index, address=NEAR, prefixlen=PREFIX)
            near.link("set", index=index, state="up")
        assert self._service.stdin is not None  # noqa: S101 - piped
        self._service.stdin.write(b"go\n")
        self._service.stdin.flush()
        self._expect("listening")
        return self

    def stop(self) -> None:
        """End it; its interface goes with its namespace."""
        self._service.stop(grace=0.5)
        self._totals.close()

    def _expect(self, word: str) -> None:
        assert self._service.stdout is not None  # noqa: S101 - piped
        said = self._service.stdout.readline().decode("ascii", "replace").strip()
        if said != word:
            raise Unreachable("the sink did not start", hint=self._service.tail())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
