"""An MCP server of a drill: answers every call over HTTP, and remembers which tools were called."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["Tools"]

PORT = 8931


class Tools:
    """On loopback of the present network namespace. `called` are the tools in the order of their calls."""

    port = PORT

    def __init__(self) -> None:
        self.called: list[str] = []
        called = self.called

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body: Any = json.loads(self.rfile.read(min(int(self.headers["content-length"] or 0), 1 << 20)) or b"{}")
                called.append(str(body.get("params", {}).get("name", "")))
                text = json.dumps({"jsonrpc": "2.0", "id": body.get("id"), "result": {"content": []}}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                """Nothing: stdout is the theatre's."""

        self._server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
