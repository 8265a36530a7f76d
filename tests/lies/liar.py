"""A proxy in front of a real part that lies: it swallows a call and says yes, or says nothing that can be understood.

On TCP or on a Unix socket; HTTP/1.1, kept connections. What no lie is about goes through, byte for byte.
"""

from __future__ import annotations

import http.client
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

__all__ = ["FAULTS", "Answer", "Liar", "Request"]


@dataclass(frozen=True)
class Request:
    """What was asked: method, path with its query, body as text."""

    method: str
    path: str
    body: str

    def says(self, *words: str) -> bool:
        """Whether each of these stands in the request's first line or body."""
        text = f"{self.method} {self.path}\n{self.body}"
        return all(word in text for word in words)


@dataclass(frozen=True)
class Answer:
    """A made-up answer. `silent`: none at all until the lie ends; `torn`: the connection is cut."""

    body: bytes = b""
    status: int = 200
    kind: str = "application/json"
    silent: bool = False
    torn: bool = False


FAULTS: dict[str, Answer] = {
    "cut off": Answer(torn=True),
    "hanging": Answer(silent=True),
    "garbage": Answer(b"\xff\xfe<html>\x00" * 40, kind="text/html"),
    "an empty yes": Answer(b""),
    "an empty object": Answer(b"{}"),
    "a null": Answer(b"null"),
    "a failing server": Answer(b'{"errors":["internal error"]}', status=500),
    "a busy server": Answer(b"slow down", status=503),
}
"""Ways in which what verifying asks may be of no use. None of them shows anything."""

_LONGEST_SILENCE = 2.5  # longer than the clients of Vault and AWS wait


@dataclass
class _Lie:
    about: Callable[[Request], bool]
    tell: Callable[[Request], Answer]
    over: threading.Event = field(default_factory=threading.Event)
    told: int = 0


class Liar:
    """One proxy. `upstream` is where the truth is: (host, port), or the path of a Unix socket."""

    def __init__(self, upstream: tuple[str, int] | Path, *, at: Path | None = None) -> None:
        self._upstream = upstream
        self._lies: list[_Lie] = []
        self.asked: list[Request] = []
        handler = type("Handler", (_Handler,), {"liar": self})
        if at is None:
            self._server: socketserver.BaseServer = _Tcp(("127.0.0.1", 0), handler)
            self.port = int(self._server.server_address[1])  # type: ignore[index]
        else:
            self._server = _Unix(str(at), handler)
            at.chmod(0o666)
            self.port = 0
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        for lie in self._lies:
            lie.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def lie(self, about: Callable[[Request], bool], answer: Answer | Callable[[Request], Answer]) -> _Lie:
        """Lie until `stop`."""
        lie = _Lie(about, answer if callable(answer) else lambda _request: answer)
        self._lies = [*self._lies, lie]
        return lie

    def stop(self) -> int:
        """End all lies; how many were told."""
        lies, self._lies = self._lies, []
        for lie in lies:
            lie.over.set()
        return sum(lie.told for lie in lies)

    @contextmanager
    def lying(self, about: Callable[[Request], bool], answer: Any) -> Iterator[_Lie]:
        lie = self.lie(about, answer)
        try:
            yield lie
        finally:
            self.stop()

    def connect(self) -> http.client.HTTPConnection:
        if isinstance(self._upstream, tuple):
            return http.client.HTTPConnection(*self._upstream, timeout=30)
        connection = http.client.HTTPConnection("local", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self._upstream))
        return connection

    def answer(self, request: Request) -> tuple[_Lie, Answer] | None:
        for lie in self._lies:
            if lie.about(request):
                lie.told += 1
                return lie, lie.tell(request)
        return None


class _Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    liar: Liar
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_: Any) -> None:
        """Not to the test's output."""

    def address_string(self) -> str:
        return "local"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        request = Request(self.command, self.path, body.decode("utf-8", "replace"))
        self.liar.asked.append(request)
        found = self.liar.answer(request)
        if found is None:
            self._through(body)
            return
        lie, answer = found
        if answer.silent:
            lie.over.wait(_LONGEST_SILENCE)
        if answer.silent or answer.torn:
            self.close_connection = True
            self.connection.close()
            return
        self._say(answer.status, answer.body, [("Content-Type", answer.kind)])

    do_POST = do_PUT = do_DELETE = do_LIST = do_HEAD = do_PATCH = do_GET  # noqa: N815 - http.server's names

    def _through(self, body: bytes) -> None:
        upstream = self.liar.connect()
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"connection", "expect"}:
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            response = upstream.getresponse()
            content = response.read()
            kept = [
                (name, value)
                for name, value in response.getheaders()
                if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}
            ]
            date = response.getheader("Date")
            self._say(response.status, content, [*kept, *([("Date", date)] if date else [])])
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            self.connection.close()
        finally:
            upstream.close()

    def _say(self, status: int, content: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(content)
