"""Destinations that data might reach: what must never be reached, what may be, and a proxy that denies nothing."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

NAMES = {"good.test": "127.0.0.2", "rebound.test": "127.0.0.1", "metadata.google.internal": "127.0.0.1"}


class Sinks:
    """`hits` are the places that something reached which nothing may reach; `plain` what came to the allowed one."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.tcp: list[list[object]] = []
        self.udp: list[list[object]] = []
        self.forbidden = self._tcp("127.0.0.1", self._forbidden)
        self.forbidden_there = self._tcp("127.0.0.2", self._forbidden)
        self.good = self._tcp("127.0.0.2", self._good)
        self.proxy = self._tcp("127.0.0.1", self._proxy)
        self.tcp = [["127.0.0.1", self.forbidden], ["127.1", self.forbidden], ["::ffff:127.0.0.1", self.forbidden]]
        with contextlib.suppress(OSError):
            self.tcp.append(["::1", self._tcp("::1", self._forbidden)])
        self.udp = [["127.0.0.1", self._udp("127.0.0.1")]]
        with contextlib.suppress(OSError):
            self.udp.append(["::1", self._udp("::1")])

    def close(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _tcp(self, host: str, serve: Callable[[socket.socket], None]) -> int:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family, backlog=64)
        self._start(listener, self._accept, listener, serve)
        return int(listener.getsockname()[1])

    def _udp(self, host: str) -> int:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        self._start(sock, self._answer, sock)
        return int(sock.getsockname()[1])

    def _start(self, sock: socket.socket, call: Callable[..., None], *args: object) -> None:
        self._sockets.append(sock)
        thread = threading.Thread(target=call, args=args, daemon=True)
        thread.start()

    def _accept(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(link, serve), daemon=True).start()

    @staticmethod
    def _one(link: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with link, contextlib.suppress(OSError):
            link.settimeout(5)
            serve(link)

    def _answer(self, sock: socket.socket) -> None:
        while True:
            try:
                data, place = sock.recvfrom(65536)
            except OSError:
                return
            if place is None:  # shut down
                return
            self.hits.append(f"UDP: {data[:60]!r}")
            sock.sendto(b"sink forbidden", place)

    def _forbidden(self, link: socket.socket) -> None:
        data = link.recv(65536)
        self.hits.append(f"TCP: {data[:60]!r}")
        body = b"sink forbidden " + data[:20]
        link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))

    def _good(self, link: socket.socket) -> None:
        """Careless: whatever begins a line like the denied request is taken for it."""
        link.settimeout(0.2)
        data = b""
        with contextlib.suppress(TimeoutError):
            while part := link.recv(65536):
                data += part
                found = b"sink denied" if _denied(data) else b"sink good"
                if found == b"sink denied":
                    self.hits.append(f"a request that the policy denies: {data[-200:]!r}")
                link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(found), found))

    def _proxy(self, link: socket.socket) -> None:
        """A proxy as the gateway must not be: it goes wherever it is told."""
        data = link.recv(65536)
        method, target = data.split(b" ", 2)[:2] if data.count(b" ") >= 2 else (b"", b"")
        place = target.decode("latin-1").removeprefix("http://").partition("/")[0]
        host, _, port = place.rpartition("@")[2].rpartition(":")
        if not port.isdigit():
            link.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nadmin")
            return
        with socket.create_connection((NAMES.get(host, host).strip("[]"), int(port) % 65536), timeout=3) as onward:
            if method == b"CONNECT":
                link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                data = link.recv(65536)
            onward.sendall(data)
            onward.settimeout(2)
            while part := onward.recv(65536):
                link.sendall(part)


def _denied(data: bytes) -> bool:
    return any(b"denied-path" in line.split(b" HTTP")[0] and b" " in line for line in data.split(b"\n"))
