"""`/healthz` and `/metrics` on a Unix socket: what was read, refused, found, contained, and how fast."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Health", "prometheus"]

Report = Mapping[str, float | Mapping[str, float]]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Health:
    """Serves what `report` returns: numbers, or numbers by label. A socket left by a former process is replaced."""

    def __init__(self, path: Path, report: Callable[[], Report]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = 5.0

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._send("application/json", json.dumps({"status": "ok", **report()}))
                elif self.path == "/metrics":
                    self._send("text/plain; version=0.0.4", prometheus(report()))
                else:
                    self.send_error(404)

            def _send(self, kind: str, text: str) -> None:
                content = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Requests for metrics are not worth a line."""

        path.unlink(missing_ok=True)
        self._path = path
        self._server = _Server(str(path), Handler)
        path.chmod(0o660)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._path.unlink(missing_ok=True)


def prometheus(report: Report) -> str:
    """The report in Prometheus' text format. Labels are our own fixed words, and are escaped all the same."""
    lines = []
    for name, value in report.items():
        if isinstance(value, Mapping):
            lines += [f'clawback_watch_{name}{{kind="{_escaped(kind)}"}} {number}' for kind, number in value.items()]
        else:
            lines.append(f"clawback_watch_{name} {value}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
