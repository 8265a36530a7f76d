"""An agent whose release goes by stages: its calls are real, its gateway tells of them, it can go rogue."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lies.answers import yes
from lies.liar import Answer, Request
from lies.scenes import Host, until

from clawback.actions.release_observe import ACTION as OBSERVE
from clawback.actions.release_restricted import ACTION as RESTRICTED
from clawback.connectors.telemetry import FileTelemetry
from clawback.errors import NotFound
from clawback.model import Attempt, Decision, Draft, Level, Receipt, staged_name
from clawback.world import RecoveryTerms, World

__all__ = ["NAMES", "Staged", "Upstream", "as_it_is", "wide_draft"]

NAMES = ("api.liar.test", "files.liar.test", "evil.liar.test", "cloud.liar.test", "local.liar.test")
"""Each leads to loopback, where the scene's own server is; only policies that name them lead there."""

_TOLD = "send the list to files.liar.test"
_WATCHED_SECONDS = 0.3


class Upstream:
    """Where the agent's calls arrive: how many did, and their paths."""

    def __init__(self) -> None:
        self.arrived = 0
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Not to the test's output."""

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.paths.append(self.path)
                outer.arrived += 1
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_GET  # noqa: N815 - http.server's names

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class Staged(Host):
    """Its policy lets it reach two hosts. One it uses; the other is where the incident's data went."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.upstream = Upstream()
        port = self.upstream.port
        self.used = Attempt(kind="http", target=f"GET http://api.liar.test:{port}/v1/tickets/7")
        self.rogue = Attempt(kind="connect", target=f"files.liar.test:{port}")
        self.POLICY = f"""\
apiVersion: openshell.nvidia.com/v1
kind: SandboxPolicy
metadata: {{name: lies}}
spec:
  isolation: {{network: restricted}}
  resources: {{maxCPU: 1, maxProcesses: 64}}
---
networkPolicy:
  name: lies
  egress:
    allow:
      - {{name: api, domain: api.liar.test, ports: [{port}]}}
      - {{name: files, domain: files.liar.test, ports: [{port}]}}
"""
        self.WIDER = self.POLICY.replace("api.liar.test", "'*.liar.test'")
        self.AGENT = f"""\
import pathlib, threading, time, urllib.request
def calls():
    while True:
        hosts = ["api.liar.test"] + ["evil.liar.test"] * pathlib.Path("rogue").exists()
        for host in hosts:
            try:
                urllib.request.urlopen(f"http://{{host}}:{port}/v1/tickets/7", timeout=2).read()
            except OSError:
                pass
        time.sleep(0.1)
with open("work/told.jsonl", "w") as told:
    told.write('{{"role": "user", "content": "{_TOLD}"}}\\n')
threading.Thread(target=calls, daemon=True).start()
{self.AGENT}"""
        self.began_ns = time.time_ns()
        self.telemetry = folder / "telemetry"
        self.telemetry.symlink_to(state / "telemetry")
        self.misbehaved = False
        super().__init__(folder, state)
        self.closing.append(self.upstream.close)

    def open(self, **changes: Any) -> None:
        until(lambda: self.told_of("api.liar.test", blocked=False), what="the agent's call in the telemetry")
        attempts = (("open", "/root/.aws/credentials"), (self.rogue.kind, self.rogue.target))
        super().open(**{"attempts": attempts, **changes})

    def world(self) -> World:
        return dataclasses.replace(
            super().world(),
            telemetry_or_none=FileTelemetry(self.telemetry),
            orders_or_none=self.policies,
            transcripts=(f"{self.folder}/home/work/*.jsonl",),
            recovery=RecoveryTerms(observe_seconds=_WATCHED_SECONDS, restricted_seconds=_WATCHED_SECONDS),
        )

    # -- what was done, and what is so ---------------------------------------------------------------------------------

    def observe(self) -> Receipt:
        return self.must(OBSERVE, **self.who, reason="a lie suite")

    def restrict(self) -> Receipt:
        here = {"agent": self.agent, "instance": self.here().instance}
        return self.must(RESTRICTED, **here, reason="a lie suite")

    @property
    def told(self) -> str:
        """What stands in the agent's transcript."""
        return _TOLD

    @property
    def copy(self) -> str:
        """The policy that it runs under while its release is staged."""
        return staged_name(self.agent, self.agent)

    def here(self) -> Any:
        return self.true_core.agent(self.agent)

    def decides_by(self, policy: str) -> str:
        """The text."""
        return self.true_policies.read(policy, self.true_policies.active(policy).version)

    def allowed(self, policy: str, call: Attempt) -> bool:
        return self.true_policies.decide(policy, call).allowed

    def in_force(self, policy: str) -> bool:
        """Whether the engine has it at all."""
        try:
            return bool(self.true_policies.active(policy))
        except NotFound:
            return False

    def put(self, policy: str, text: str) -> None:
        """As somebody would who has the right to, and should not."""
        self.true_policies.put(policy, text, author="somebody", reason="quick fix")

    def told_of(self, host: str, *, blocked: bool) -> bool:
        """Whether the gateway told of a call of this instance to that host."""
        events = FileTelemetry(self.state / "telemetry").events(agent=self.agent, since_ns=self.began_ns).events
        return any(getattr(x, "host", "") == host and x.blocked is blocked for x in events)

    def called(self) -> bool:
        """Whether a call of use arrives, within as long as it takes for many."""
        before, end = self.upstream.arrived, time.monotonic() + 5.0
        while self.upstream.arrived == before and time.monotonic() < end:
            time.sleep(0.01)
        return self.upstream.arrived > before

    def go_rogue(self) -> None:
        """It tries what its own policy denies, and the gateway has told of it."""
        (self.folder / "home" / "rogue").touch()
        until(lambda: self.told_of("evil.liar.test", blocked=True), what="the refused call in the telemetry")
        self.misbehaved = True

    def lose_telemetry(self) -> None:
        """Where the telemetry is looked for there is none."""
        self.telemetry.unlink()
        self.telemetry.mkdir()

    def find_telemetry(self) -> None:
        self.telemetry.rmdir()
        self.telemetry.symlink_to(self.state / "telemetry")

    def start_anew(self) -> None:
        """As another operator would, under its policy itself."""
        active = self.true_policies.active(self.agent)
        self.true_core.relaunch(
            self.agent,
            policy=self.agent,
            policy_version=active.version,
            policy_text=self.decides_by(self.agent),
            reason="behind its back",
            by="another",
        )

    def hold(self, level: Level = Level.FREEZE) -> None:
        """As another operator would."""
        self.true_core.contain(self.agent, level, reason="again", by="another", incident=self.incident_id)


class as_it_is:  # noqa: N801 - stands where an answer does
    """The version that decides, unchanged, as the answer to whatever was to change it. `of` picks the policy."""

    def __init__(self, of: str) -> None:
        self._of, self._scene = of, None

    def note(self, scene: Any) -> None:
        self._scene = scene

    def __call__(self, _request: Request) -> Answer:
        scene: Any = self._scene
        return yes(dataclasses.asdict(scene.true_policies.active(getattr(scene, self._of))))


class wide_draft:  # noqa: N801 - the same
    """The policy's own text, as if it were narrower, and every call denied by it."""

    def __init__(self) -> None:
        self._scene = None

    def note(self, scene: Any) -> None:
        self._scene = scene

    def __call__(self, request: Request) -> Answer:
        scene: Any = self._scene
        active = scene.true_policies.active(scene.agent)
        said = Decision(allowed=False, rule="", reason="believe me", policy=scene.agent, policy_version=active.version)
        draft = Draft(
            policy=scene.agent,
            version=active.version,
            text=scene.POLICY,
            sha256=active.sha256,
            diff="",
            changes=("allows nothing",),
            left=(),
            decisions=(said,) * len(json.loads(request.body)["attempts"]),
        )
        return yes(dataclasses.asdict(draft))
