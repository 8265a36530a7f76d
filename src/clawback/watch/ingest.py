"""Takes OCSF events of other products into the `external` stream, for the agents that they concern.

An alert (class 2004, Detection Finding) concerns an agent if it names the agent, this host, or a host or person that
the agent is tagged with (`host=NAME`, `user=NAME`, `owner=NAME`). A use of a credential (class 3002, Authentication)
concerns the agent that holds the credential, by an identifier in it: an access key's id, a token's accessor.

What such a line says is its writer's word: it can get an agent held, so only who may write the telemetry may ingest.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import AgentInfo, CredentialRef, CredentialUse, Disposition, ExternalAlert, Severity, Source
from clawback.model.ocsf import LINE_LIMIT, Rejected, load

__all__ = ["Ingest", "Ingested"]

_TAGS = {"host": ("host",), "user": ("user", "owner")}
_REFUSED_SHOWN = 20
_SEVERITIES = {int(item): item for item in Severity}
_FAILURE = 2  # OCSF status_id
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """How many events were written, about whom, how many lines concern nobody here, and which are no such events."""

    written: int
    agents: tuple[str, ...]
    unrelated: int
    refused: tuple[str, ...]


class Ingest:
    """`own_addresses` are those that this host's traffic leaves by; without any, no use can be said to be elsewhere."""

    def __init__(self, telemetry: Path, agents: Sequence[AgentInfo], *, own_addresses: Sequence[str] = ()) -> None:
        self._writer = TelemetryWriter(telemetry, Source.EXTERNAL, rate=5_000.0, burst=50_000.0)
        self._agents = tuple(agents)
        self._own = frozenset(own_addresses)
        self._host = socket.gethostname().lower()

    def close(self) -> None:
        """Close the stream."""
        self._writer.close()

    def take(self, lines: Iterable[bytes], name: str) -> Ingested:
        """Every line; one that is no such event is refused by its number, and the others are taken."""
        written = unrelated = 0
        about: dict[str, None] = {}
        refused: list[str] = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found = self._one(load(line.strip()[: LINE_LIMIT + 1]))
            except Rejected as error:
                if len(refused) < _REFUSED_SHOWN:
                    refused.append(f"{name}:{number}: {error.message}")
                continue
            unrelated += not found
            written += len(found)
            about |= dict.fromkeys(found)
        return Ingested(written=written, agents=tuple(about), unrelated=unrelated, refused=tuple(refused))

    def _one(self, body: Json) -> list[str]:
        """Writes it for each agent that it concerns; their names."""
        match body.get("class_uid"):
            case 2004:
                return self._alert(body)
            case 3002:
                return self._use(body)
        raise Rejected("class", "class_uid: neither 2004 (Detection Finding) nor 3002 (Authentication)")

    def _alert(self, body: Json) -> list[str]:
        info = _at(body, "finding_info")
        title = _text(info, "title")
        if not title:
            raise Rejected("type", "finding_info.title: missing")
        host = _text(_at(body, "device"), "hostname") or _text(_at(body, "device"), "name")
        user = _text(_at(_at(body, "actor"), "user"), "name") or _text(_at(body, "user"), "name")
        concerned = [x for x in self._agents if self._concerns(x, host, user, _text(_at(body, "unmapped"), "agent"))]
        product = _at(info, "product") or _at(_at(body, "metadata"), "product")
        attacks = info.get("attacks")
        techniques = (
            [_text(_at(x, "technique"), "uid") for x in attacks if type(x) is dict] if type(attacks) is list else []
        )
        for agent in concerned:
            self._writer.emit(
                ExternalAlert,
                agent=agent.agent,
                instance=agent.instance,
                time_ns=_time(body),
                activity_id=ExternalAlert.CREATE,
                severity=_SEVERITIES.get(_int(body, "severity_id"), Severity.UNKNOWN),
                policy=agent.policy,
                policy_version=agent.policy_version,
                product=_text(product, "name") or "unnamed",
                title=title,
                alert=_text(info, "uid"),
                host=host,
                user=user,
                attack=tuple(x for x in techniques if x)[:32],
            )
        return [agent.agent for agent in concerned]

    def _concerns(self, agent: AgentInfo, host: str, user: str, named: str) -> bool:
        if named:
            return agent.agent == named
        if host and host.lower().partition(".")[0] == self._host.partition(".")[0]:
            return True
        tags = {tag.lower() for tag in agent.tags}
        wanted = {f"{key}={host.lower()}" for key in _TAGS["host"] if host}
        wanted |= {f"{key}={user.lower()}" for key in _TAGS["user"] if user}
        return bool(tags & wanted)

    def _use(self, body: Json) -> list[str]:
        user, session = _at(body, "user"), _at(body, "session")
        ids = {_text(user, "credential_uid"), _text(session, "credential_uid"), _text(session, "uid")} - {""}
        if not ids:
            raise Rejected("type", "user.credential_uid, session.credential_uid: neither says which credential")
        origin = _text(_at(body, "src_endpoint"), "ip")
        issuer = _text(_at(body, "service"), "name") or _text(_at(_at(body, "metadata"), "product"), "name")
        refused = body.get("status_id") == _FAILURE
        found = [(x, ref) for x in self._agents for ref in x.credentials if _holds(ref, ids)]
        for agent, ref in found:
            self._writer.emit(
                CredentialUse,
                agent=agent.agent,
                instance=agent.instance,
                time_ns=_time(body),
                activity_id=CredentialUse.LOGON,
                disposition=Disposition.BLOCKED if refused else Disposition.ALLOWED,
                policy=agent.policy,
                policy_version=agent.policy_version,
                credential=ref.name,
                issuer=issuer or "unnamed",
                origin=origin,
                operation=_text(_at(body, "api"), "operation"),
                elsewhere=bool(self._own and origin and origin not in self._own),
                canary=ref.identifiers.get("canary", "") == "true",
            )
        return [agent.agent for agent, _ in found]


def _holds(ref: CredentialRef, ids: set[str]) -> bool:
    """By what is one credential's own: not by its role, user or path, which others have as well."""
    return any(ref.identifiers.get(key) in ids for key in ("access_key_id", "accessor", "client_id"))


def _time(body: Json) -> int:
    """The event's own time; 0, which is now, where it gives none."""
    return _int(body, "time") * 1_000_000


def _at(container: Json, key: str) -> Json:
    value = container.get(key)
    return value if type(value) is dict else {}


def _text(container: Json, key: str) -> str:
    value = container.get(key)
    return value[:1024] if type(value) is str else ""


def _int(container: Json, key: str) -> int:
    value = container.get(key)
    return value if type(value) is int and 0 <= value < 2**43 else 0
