"""Speaks to the gateway's API: the policy version store, decisions, orders, and cutting an agent off."""

from __future__ import annotations

import dataclasses
import http.client
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from clawback import errors
from clawback.enforcement.policy.network import NAME
from clawback.errors import ClawbackError, InvalidInput, Unreachable
from clawback.model import (
    Attempt,
    Decision,
    Draft,
    EgressOrder,
    InferenceEndpoint,
    InferenceKind,
    Narrowing,
    OrderKind,
    PolicyVersion,
    Scope,
    ScopeKind,
    Subject,
)

__all__ = ["GatewayClient"]

_Told = TypeVar("_Told")
_TYPES = {name: getattr(errors, name) for name in ("InvalidInput", "NotFound", "Refused", "Unreachable", "NotEnforced")}


_NOT_GIVEN = ("id", "scope", "placed_ns", "uid")


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
        return _read(_versions, self._call("GET", f"/policies/{_name(policy)}/versions"))

    def read(self, policy: str, version: int) -> str:
        """The text of one version."""
        told = self._call("GET", f"/policies/{_name(policy)}/versions/{version}")
        return _read(lambda told: str(told["text"]), told)

    def active(self, policy: str) -> PolicyVersion:
        """The version the engine decides with at this moment."""
        return _read(_version, self._call("GET", f"/policies/{_name(policy)}/active"))

    def put(
        self, policy: str, text: str, *, author: str, reason: str, known_good: bool = False, incident: str = ""
    ) -> PolicyVersion:
        """Record and activate a text. Equal to the active one: that version. Unsound: `InvalidInput`."""
        body = {"text": text, "author": author, "reason": reason, "known_good": known_good, "incident": incident}
        return _read(_version, self._call("PUT", f"/policies/{_name(policy)}", body))

    def mark_known_good(self, policy: str, version: int, *, author: str) -> PolicyVersion:
        """Mark a version as what recovery may return to."""
        path = f"/policies/{_name(policy)}/versions/{version}/known-good"
        return _read(_version, self._call("POST", path, {"author": author}))

    def restore(self, policy: str, version: int, *, author: str, reason: str, incident: str = "") -> PolicyVersion:
        """Activate a new version whose text equals `version`'s; the active one, if it does already."""
        body = {"author": author, "reason": reason, "incident": incident}
        return _read(_version, self._call("POST", f"/policies/{_name(policy)}/versions/{version}/restore", body))

    def draft(self, policy: str, version: int, narrowing: Narrowing, *, attempts: Sequence[Attempt] = ()) -> Draft:
        """A narrower text than a version's, and what the engine would say by it; nothing is recorded."""
        body = {
            "deny": _attempts(narrowing.deny),
            "keep": None if narrowing.keep is None else _attempts(narrowing.keep),
            "drop": narrowing.drop,
            "share": narrowing.share,
            "attempts": _attempts(attempts),
        }
        return _read(_draft, self._call("POST", f"/policies/{_name(policy)}/versions/{version}/draft", body))

    def decide(self, policy: str, attempt: Attempt, *, subject: Subject | None = None) -> Decision:
        """What the gateway says to an `http` or `connect` attempt of an agent, without making it: by the orders that
        stand and the active version. Without an agent, of all orders those for everybody count.
        """
        body: dict[str, Any] = {"kind": attempt.kind, "target": attempt.target}
        if subject is not None:
            body["subject"] = dataclasses.asdict(subject)
        said = self._call("POST", f"/policies/{_name(policy)}/decide", body)
        return _read(_decision, said)

    def orders(self) -> tuple[EgressOrder, ...]:
        """Every order that stands, oldest first, damaged ones too."""
        return _read(lambda told: tuple(_order(one) for one in told["orders"]), self._call("GET", "/orders"))

    def inference(self) -> tuple[InferenceEndpoint, ...]:
        """The inference endpoints that the gateway knows."""
        said = self._call("GET", "/orders")
        return _read(lambda told: tuple(_inference(one) for one in told["inference"]), said)

    def held(self) -> dict[str, int]:
        """Order → how many requests it holds at this moment."""
        said = self._call("GET", "/orders")
        return _read(lambda told: {str(key): int(value) for key, value in told["held"].items()}, said)

    def place(self, order: EgressOrder) -> tuple[EgressOrder, int]:
        """Have an order stand: durable, in force and made true of what is open when this returns, with the number of
        connections that were reset. Again: the standing one. `Refused` where the id is another order's.
        """
        body = {key: value for key, value in dataclasses.asdict(order).items() if key not in _NOT_GIVEN}
        body |= {"scope_kind": order.scope.kind, "scope_value": order.scope.value}
        said = self._call("PUT", f"/orders/{_part(order.id)}", body)
        return _read(lambda told: (_order(told["order"]), int(told["connections_reset"])), said)

    def lift(self, order: str, *, reason: str, by: str) -> EgressOrder | None:
        """End an order, durably; what it was, None where none of that id stands."""
        said = self._call("POST", f"/orders/{_part(order)}/lift", {"reason": reason, "by": by})
        return _read(lambda told: None if told["lifted"] is None else _order(told["lifted"]), said)

    def health(self) -> dict[str, Any]:
        """`status`, `uid`, `agents`, `policies` (name → version), `cut`, `orders` (how many), `orders_damaged` (ids),
        `telemetry_lost`.
        """
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


def _order(said: dict[str, Any]) -> EgressOrder:
    scope = Scope(ScopeKind(said["scope"]["kind"]), str(said["scope"]["value"]))
    return EgressOrder(**{**said, "kind": OrderKind(said["kind"]), "scope": scope})


def _attempts(attempts: Sequence[Attempt]) -> list[dict[str, str]]:
    return [{"kind": one.kind, "target": one.target} for one in attempts]


def _inference(said: dict[str, Any]) -> InferenceEndpoint:
    return InferenceEndpoint(**{**said, "kind": InferenceKind(said["kind"])})


def _decision(told: Any) -> Decision:
    return Decision(**{**told, "orders": tuple(told["orders"]), "calls": tuple(told["calls"])})


def _draft(told: Any) -> Draft:
    lists = {"changes": tuple(told["changes"]), "left": tuple(told["left"])}
    return Draft(**{**told, **lists, "decisions": tuple(_decision(one) for one in told["decisions"])})


def _versions(told: Any) -> tuple[PolicyVersion, ...]:
    if not isinstance(told, list):
        raise TypeError(told)  # an object that says nothing is not a list of none
    return tuple(map(_version, told))


def _version(told: Any) -> PolicyVersion:
    return PolicyVersion(**told)


def _read(shape: Callable[[Any], _Told], answer: Any) -> _Told:
    """`Unreachable` where the answer is none to what was asked: whatever speaks there, it is no gateway of ours."""
    try:
        return shape(answer)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Unreachable(
            f"the gateway's answer cannot be read: {type(error).__name__}",
            hint="is this socket clawback gateway's, and of the same version?",
        ) from None


def _name(policy: str) -> str:
    if not NAME.fullmatch(policy):
        raise InvalidInput(
            f"{policy[:80]!r} is not a policy name", hint="lower-case letters, digits, '-', '_' and '.', at most 63"
        )
    return policy


def _part(text: str) -> str:
    return quote(text, safe="")
