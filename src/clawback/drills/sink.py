"""The far end of an exfiltration: a TCP server in a network namespace of its own that counts what reaches it.

    python -m clawback.drills.sink COUNTERS

`COUNTERS` is a 16-byte file: little-endian 64-bit bytes received, and the monotonic time in ns of the last of them. The
program makes its own network namespace, writes `ready` to stdout, waits for a line on stdin (by which time its peer has
put an interface into the namespace), then accepts on port 443 of all addresses there, and writes `listening`.
"""

from __future__ import annotations

import mmap
import selectors
import socket
import struct
import sys
import time

from clawback.enforcement.kernel import libc

__all__: list[str] = []

PORT = 443
ADDRESS = ("198.51.100.2", 30)


def _configure() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as here:
        for name, address in (("lo", None), ("eth0", ADDRESS)):
            index = here.link_lookup(ifname=name)[0]
            if address is not None:
                here.addr("add", index=index, address=address[0], prefixlen=address[1])
            here.link("set", index=index, state="up")


def main(counters: str) -> None:
    """Count until stdin closes."""
    libc.unshare(libc.CLONE_NEWNET)
    print("ready", flush=True)  # noqa: T201 - the protocol with the parent
    sys.stdin.readline()
    _configure()
    with open(counters, "r+b") as file:  # noqa: PTH123 - mmap wants the descriptor
        totals = mmap.mmap(file.fileno(), 16)
    listener = socket.create_server(("0.0.0.0", PORT))
    print("listening", flush=True)  # noqa: T201
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    received = 0
    while True:
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listener:
                connection, _peer = listener.accept()
                waiting.register(connection, selectors.EVENT_READ)
                continue
            source = key.fileobj
            assert isinstance(source, socket.socket)  # noqa: S101 - for the type checker: nothing else is registered
            try:
                data = source.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                waiting.unregister(source)
                source.close()
                continue
            received += len(data)
            struct.pack_into("<QQ", totals, 0, received, time.monotonic_ns())


if __name__ == "__main__":
    main(sys.argv[1])
