"""The core's API as Python calls, over a few kept connections; thread-safe, and outlives a restart of the core."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter, ValidationError

from clawback.enforcement.core import wire
from clawback.enforcement.core.stdio import send_stdio
from clawback.errors import ClawbackError, InvalidInput, Unreachable
from clawback.model import (
    AgentInfo,
    Attempt,
    AttemptResult,
    EvidenceBundle,
    Halt,
    HaltedAgent,
    HaltReport,
    LaunchSpec,
    Level,
    LevelResult,
    Quarantine,
    Quarantining,
    Selector,
)

__all__ = ["CoreClient"]

_SPEC = TypeAdapter(LaunchSpec)
_Told = TypeVar("_Told")
_KEPT = 4
_HINT = "start it with `clawback core` or `clawback up`; its socket is STATE/run/core.sock"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("core", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class CoreClient:
    """`clawback.world.Core`, and `wait`, `health` and descriptors for `launch` besides.

    Raises what the core raised: `InvalidInput`, `NotFound`, `Refused`, `NotEnforced`; `Unreachable` where no core
    answers within `timeout` seconds. An order that is safe to repeat is sent once more when a kept connection turns out
    to be dead because the core was restarted; a launch goes over a new connection and is never repeated.
    """

    def __init__(self, path: Path, *, timeout: float = 60.0) -> None:
        self._path = path
        self._timeout = timeout
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []

    def agents(self) -> tuple[AgentInfo, ...]:
        """All agents the core knows, running or not."""
        return _read(wire.AGENTS, self._call("GET", "/agents"))

    def agent(self, agent: str) -> AgentInfo:
        """One agent by its stable id."""
        return _read(wire.AGENT, self._call("GET", _at(agent)))

    def launch(self, spec: LaunchSpec, *, stdio: tuple[int, int, int] | None = None) -> AgentInfo:
        """Start an agent, with these descriptors as its stdin, stdout and stderr where they are given."""
        token = send_stdio(self._path.with_name("core-fds.sock"), stdio) if stdio else ""
        body = {"spec": _SPEC.dump_python(spec, mode="json"), "stdio": token}
        return _read(wire.AGENT, self._call("POST", "/agents", body, repeat=False))

    def contain(
        self,
        agent: str,
        level: Level,
        *,
        instance: str = "",
        reason: str,
        by: str,
        incident: str = "",
        due_seconds: float = 0,
        allow: Sequence[str] | None = None,
        readable: Sequence[str] | None = None,
    ) -> LevelResult:
        """Make one level true and keep it so; the result is what was observed.

        After `due_seconds` the hold is reported as due. It is lifted by a release alone. `allow`: responders
        (`ADDRESS:PORT`) that `isolate` leaves open; `readable`: absolute paths that `restrict` does. None: as this
        holder ordered before; where several hold the agent, open is what each of them leaves open.
        """
        body = {
            "level": level.word,
            "instance": instance,
            "reason": reason,
            "by": by,
            "incident": incident,
            "due_seconds": due_seconds,
            "allow": None if allow is None else list(allow),
            "readable": None if readable is None else list(readable),
        }
        return _read(wire.RESULT, self._call("POST", _at(agent, "contain"), body))

    def quarantine(
        self,
        agent: str,
        levels: Sequence[Level],
        *,
        instance: str = "",
        reason: str,
        by: str,
        incident: str = "",
    ) -> Quarantine:
        """Freeze, isolate, or both, by one order, and each read back when both had been made true."""
        body = {
            "levels": [level.word for level in levels],
            "instance": instance,
            "reason": reason,
            "by": by,
            "incident": incident,
        }
        return _read(wire.QUARANTINE, self._call("POST", _at(agent, "quarantine"), body))

    def quarantine_many(self, orders: Sequence[Quarantining], *, by: str) -> tuple[Quarantine, ...]:
        """The same for at most 256 agents, held by one flush. Who is not in the answer was not held by this."""
        told = [
            {
                "agent": one.agent,
                "instance": one.instance,
                "levels": [level.word for level in one.levels],
                "reason": one.reason,
                "incident": one.incident,
            }
            for one in orders
        ]
        return _read(wire.QUARANTINES, self._call("POST", "/quarantines", {"orders": told, "by": by}))

    def strike(self, agents: Mapping[str, str], *, drills: bool = False) -> tuple[AgentInfo, ...]:
        """Freeze these instances (agent → instance) ahead of their orders; the agents whose kernel took it. At most
        1,024 at once.
        """
        return _read(wire.AGENTS, self._call("POST", "/strikes", {"agents": dict(agents), "drills": drills}))

    def probe(self, agent: str, level: Level, *, instance: str = "") -> LevelResult:
        """Read one level's postcondition back; changes nothing. Of an earlier `instance` `stop` alone can be asked."""
        query = urlencode({"level": level.word, **({"instance": instance} if instance else {})})
        return _read(wire.RESULT, self._call("GET", _at(agent, f"probe?{query}")))

    def release(
        self,
        agent: str,
        *,
        levels: Sequence[Level] = (),
        reason: str,
        by: str,
        incident: str = "",
        everyone: bool = False,
    ) -> tuple[LevelResult, ...]:
        """Lift one holder's order, or the levels given of it; each result says how much of the level still holds.

        `incident` names the holder; without it there has to be one only, unless `everyone` is meant.
        """
        body = {
            "levels": [level.word for level in levels],
            "reason": reason,
            "by": by,
            "incident": incident,
            "everyone": everyone,
        }
        return _read(wire.RESULTS, self._call("POST", _at(agent, "release"), body))

    def relaunch(
        self, agent: str, *, policy_version: int, policy_text: str, reason: str, by: str, policy: str = ""
    ) -> AgentInfo:
        """End what is left of the agent and start its recorded command anew under this policy."""
        body = {
            "policy": policy,
            "policy_version": policy_version,
            "policy_text": policy_text,
            "reason": reason,
            "by": by,
        }
        return _read(wire.AGENT, self._call("POST", _at(agent, "relaunch"), body, repeat=False))

    def attempt(self, agent: str, attempts: Sequence[Attempt]) -> tuple[AttemptResult, ...]:
        """Try each from inside the agent's sandbox."""
        body = {"attempts": [{"kind": one.kind, "target": one.target} for one in attempts]}
        return _read(wire.ATTEMPTS, self._call("POST", _at(agent, "attempt"), body))

    def evidence(
        self, agent: str, *, incident: str, memory: bool = False, transcripts: Sequence[str] = ()
    ) -> EvidenceBundle:
        """Collect a bounded, redacted, hashed snapshot; with `memory`, of a frozen agent's memory too; with
        `transcripts`, patterns of files inside, of those alone.
        """
        body = {"incident": incident, "memory": memory, "transcripts": list(transcripts)}
        return _read(wire.BUNDLE, self._call("POST", _at(agent, "evidence"), body))

    def halt(
        self,
        selector: Selector,
        level: Level,
        *,
        reason: str,
        by: str,
        incident: str = "",
        due_seconds: float = 0,
    ) -> HaltReport:
        """Freeze every agent that the selector means, and hold them up to `level`; starts that match are refused.

        The report has each freeze as read back. What comes after freezing is under way: `halt_report` has it.
        """
        body = {
            "selector": {"kind": selector.kind.value, "value": selector.value},
            "level": level.word,
            "reason": reason,
            "by": by,
            "incident": incident,
            "due_seconds": due_seconds,
        }
        return _read(wire.HALT, self._call("POST", "/halts", body, repeat=False))

    def halts(self) -> tuple[Halt, ...]:
        """Those that stand."""
        return _read(wire.HALTS, self._call("GET", "/halts"))

    def halt_report(self, halt: str) -> HaltReport:
        """How far it is, agent by agent."""
        return _read(wire.HALT, self._call("GET", _at(halt, room="halts")))

    def lift(self, halt: str, *, reason: str, by: str) -> tuple[HaltedAgent, ...]:
        """End a halt: what nothing else holds goes on."""
        answer = self._call("POST", _at(halt, "lift", room="halts"), {"reason": reason, "by": by})
        return _read(wire.HALTED, answer)

    def wait(self, agent: str, *, instance: str = "") -> int:
        """The exit status once the instance (the present one where none is named) has ended, without limit of time.

        Its exit code, or minus the number of the signal that ended it.
        """
        query = urlencode({"instance": instance})
        answer = json.loads(self._call("GET", _at(agent, f"wait?{query}"), endless=True))
        return int(answer["exit_status"])

    def health(self) -> dict[str, Any]:
        """What `/healthz` says; `status` is `ok` or `degraded`."""
        answer: dict[str, Any] = json.loads(self._call("GET", "/healthz"))
        return answer

    def metrics(self) -> str:
        """The page for Prometheus."""
        return self._call("GET", "/metrics").decode()

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, repeat: bool = True, endless: bool = False
    ) -> bytes:
        content = b"" if body is None else json.dumps(body).encode()
        with self._lock:
            kept = self._idle.pop() if self._idle and repeat and not endless else None
        if kept is not None:
            try:
                return self._exchange(kept, method, path, content)
            except ConnectionError:
                self.close()  # the core went away under a kept connection; the others are as dead
            except (OSError, http.client.HTTPException) as error:
                raise self._silence(kept, error) from None
        connection = _Connection(self._path, None if endless else self._timeout)
        try:
            return self._exchange(connection, method, path, content)
        except (OSError, http.client.HTTPException) as error:
            raise self._silence(connection, error) from None

    def _silence(self, connection: _Connection, error: Exception) -> Unreachable:
        connection.close()
        what = getattr(error, "strerror", None) or type(error).__name__
        return Unreachable(f"the core does not answer at {self._path}: {what}", hint=_HINT)

    def _exchange(self, connection: _Connection, method: str, path: str, content: bytes) -> bytes:
        connection.request(method, path, content or None, {"Content-Type": "application/json"} if content else {})
        response = connection.getresponse()
        answer = response.read()
        if connection.timeout is None or response.will_close:
            connection.close()
        else:
            with self._lock:
                keep = len(self._idle) < _KEPT
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()
        if response.status < 400 or (path == "/healthz" and response.status == 503):
            return answer
        raise _error(answer, response.status)


def _read(shape: TypeAdapter[_Told], answer: bytes) -> _Told:
    """`Unreachable` where the answer is none to what was asked: whatever speaks there is no core of this version."""
    try:
        return shape.validate_json(answer)
    except ValidationError as error:
        raise Unreachable(
            f"the core's answer cannot be read ({error.error_count()} things are wrong with it)",
            hint="is this socket clawback core's, and of the same version?",
        ) from None


def _at(agent: str, rest: str = "", *, room: str = "agents") -> str:
    if not agent or agent in {".", ".."}:
        raise InvalidInput(f"{room.removesuffix('s')}: empty or no name", hint=f"clawback {room} lists them")
    return f"/{room}/{quote(agent, safe='')}" + (f"/{rest}" if rest else "")


def _error(answer: bytes, status: int) -> ClawbackError:
    try:
        body = json.loads(answer)
        kind = wire.ERRORS[body["type"]][1]
        return kind(str(body["error"]), hint=str(body["hint"]))
    except (ValueError, KeyError, TypeError):
        return ClawbackError(f"the core answered {status} without saying why", hint="is this socket clawback core's?")
