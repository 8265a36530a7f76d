"""Speaks to the gateway's API: the policy version store, decisions, and cutting an agent off."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clawback import errors
from clawback.enforcement.policy.network import NAME
from clawback.errors import ClawbackError, InvalidInput, Unreachable
from clawback.model import Attempt, Decision, PolicyVersion

__all__ = ["GatewayClient"]

_TYPES = {name: getattr(errors, name) for name in ("InvalidInput", "NotFound", "Refused", "Unreachable", "NotEnforced")}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("gateway", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class GatewayClient:
    """`path` is `STATE/run/gateway.sock`; each call waits at most `timeout` seconds. Safe in threads.

    Raises `Unreachable` where the gateway does not answer, and the errors that the gateway names.
    """

    path: Path
    timeout: float = 10.0

    def versions(self, policy: str) -> tuple[PolicyVersion, ...]:
        """All versions, oldest first."""
        return tuple(PolicyVersion(**one) for one in self._call("GET", f"/policies/{_name(policy)}/versions"))

    def read(self, policy: str, version: int) -> str:
        """The text of one version."""
        return str(self._call("GET", f"/policies/{_name(policy)}/versions/{version}")["text"])

    def active(self, policy: str) -> PolicyVersion:
        """The version the engine decides with at this moment."""
        return PolicyVersion(**self._call("GET", f"/policies/{_name(policy)}/active"))

    def put(self, policy: str, text: str, *, author: str, reason: str, known_good: bool = False) -> PolicyVersion:
        """Record and activate a text. Equal to the active one: that version. Unsound: `InvalidInput`."""
        body = {"text": text, "author": author, "reason": reason, "known_good": known_good}
        return PolicyVersion(**self._call("PUT", f"/policies/{_name(policy)}", body))

    def mark_known_good(self, policy: str, version: int, *, author: str) -> PolicyVersion:
        """Mark a version as what recovery may return to."""
        path = f"/policies/{_name(policy)}/versions/{version}/known-good"
        return PolicyVersion(**self._call("POST", path, {"author": author}))

    def restore(self, policy: str, version: int, *, author: str, reason: str, incident: str = "") -> PolicyVersion:
        """Activate a new version whose text equals `version`'s; the active one, if it does already."""
        body = {"author": author, "reason": reason, "incident": incident}
        return PolicyVersion(**self._call("POST", f"/policies/{_name(policy)}/versions/{version}/restore", body))

    def decide(self, policy: str, attempt: Attempt) -> Decision:
        """What the active version says to an `http` or `connect` attempt, without making it."""
        body = {"kind": attempt.kind, "target": attempt.target}
        return Decision(**self._call("POST", f"/policies/{_name(policy)}/decide", body))

    def health(self) -> dict[str, Any]:
        """`status`, `uid`, `agents`, `policies` (name → version), `cut`, `telemetry_lost`."""
        return dict(self._call("GET", "/healthz"))

    def cut(self, agent: str, *, reason: str) -> int:
        """Refuse all of the agent's requests and reset its connections; how many those were. Ends with the gateway."""
        return int(self._call("POST", f"/agents/{_part(agent)}/cut", {"reason": reason})["connections_reset"])

    def uncut(self, agent: str) -> bool:
        """Take a cut back; False where there was none."""
        return bool(self._call("POST", f"/agents/{_part(agent)}/uncut", {})["was_cut"])

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = _UnixConnection(self.path, self.timeout)
        try:
            headers = {"content-type": "application/json"} if body is not None else {}
            try:
                connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
            except BrokenPipeError:
                pass  # refused before it was read: the answer says why
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(
                f"the gateway at {self.path} does not answer: {type(error).__name__}",
                hint="is `clawback gateway` running?",
            ) from None
        finally:
            connection.close()
        if response.status >= 400:
            found = answer.get("error", {}) if isinstance(answer, dict) else {}
            kind = _TYPES.get(str(found.get("type")), ClawbackError)
            raise kind(str(found.get("message", f"HTTP {response.status}")), hint=str(found.get("hint", "")))
        return answer


def _name(policy: str) -> str:
    if not NAME.fullmatch(policy):
        raise InvalidInput(
            f"{policy[:80]!r} is not a policy name", hint="lower-case letters, digits, '-', '_' and '.', at most 63"
        )
    return policy


def _part(text: str) -> str:
    return quote(text, safe="")
