"""notify.send: the channel says yes in words that are not its own, or nothing."""

from __future__ import annotations

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lies.case import Case, Lie
from lies.liar import Answer, Liar

from clawback.actions.notify_send import ACTION
from clawback.config import ChannelSettings
from clawback.connectors.notify import Channels

KEY = "e93facc04764012d7bfb002500d5d1a6"


def _before(scene):
    """An alerting service on loopback that keeps what it accepts, behind a liar."""
    scene.kept = kept = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_): ...

        def do_POST(self):
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.append(event["dedup_key"])
            answer = json.dumps({"status": "success", "dedup_key": event["dedup_key"]}).encode()
            self.send_response(202)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    scene.liars["channel"] = liar = Liar(("127.0.0.1", http.server_address[1]))
    scene.closing += [thread.join, http.server_close, http.shutdown, liar.close]
    file = scene.folder / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    settings = ChannelSettings(kind="pagerduty-events-v2", url=f"{liar.url}/v2/enqueue", secret_file=file)
    scene.notifier = Channels(scene.folder / "notices", {"oncall": settings})


CASE = Case(
    action=ACTION,
    scene="desk",
    before=_before,
    params=lambda _: {"stage": "opened"},
    holds=lambda scene, _: scene.incident_id in scene.kept,
    lies=tuple(
        Lie(what=what, part="channel", about=lambda _: True, answer=answer)
        for what, answer in {
            "a proxy says yes": Answer(b"ok"),
            "it says yes to another": Answer(b'{"status": "success", "dedup_key": "INC-0"}', status=202),
            "it accepts and means nothing": Answer(b"{}", status=202),
            "it is busy": Answer(b"slow down", status=429),
            "it says nothing": dataclasses.replace(Answer(), torn=True),
        }.items()
    ),
    no_api="verifying asks nothing: what the channel answered when it took the message is all there will be to see",
    never_undone="a message that was taken cannot be taken back, and nobody can look whether it is there",
)
