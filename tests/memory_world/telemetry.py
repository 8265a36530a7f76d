"""Telemetry that was written, and what nobody logged."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from clawback.errors import Unreachable
from clawback.model import (
    AgentInfo,
    Attempt,
    Disposition,
    Event,
    FileActivity,
    HttpActivity,
    KernelActivity,
    NetworkActivity,
    Source,
)
from clawback.world import Sighted

__all__ = ["MemoryTelemetry"]


class MemoryTelemetry:
    """What was written. `deaf`: what the core denies is not logged; `down`: nothing can be read."""

    def __init__(self) -> None:
        self.written: list[Event] = []
        self.deaf = False
        self.down = False

    def write(self, kind: type[Any], **fields: Any) -> Any:
        values: dict[str, Any] = {
            "time_ns": time.time_ns(),
            "writer": "w",
            "sequence": len(self.written) + 1,
            "source": Source.POLICY,
            "agent": "a",
            "disposition": Disposition.ALLOWED,
        }
        self.written.append(kind(**(values | fields)))
        return self.written[-1]

    def add(self, kind: type[Any], **fields: Any) -> Any:
        return self.write(kind, **({"instance": "i1", "policy": "support", "policy_version": 2} | fields))

    def denied(self, info: AgentInfo, attempt: Attempt) -> None:
        if self.deaf:
            return
        about = {"agent": info.agent, "instance": info.instance, "policy": info.policy}
        about["disposition"] = Disposition.BLOCKED
        if attempt.kind == "connect":
            host, _, port = attempt.target.rpartition(":")
            self.write(NetworkActivity, host=host, port=int(port), activity_id=NetworkActivity.REFUSE, **about)
        elif attempt.kind == "http":
            parts = urlsplit(attempt.target.partition(" ")[2])
            port = parts.port or 80
            method = attempt.target.partition(" ")[0]
            self.write(HttpActivity, method=method, host=parts.hostname, port=port, path=parts.path, **about)
        elif attempt.kind == "open":
            self.write(FileActivity, path=attempt.target, source=Source.SANDBOX, **about)
        else:
            self.write(KernelActivity, syscall=attempt.target, source=Source.SANDBOX, **about)

    def events(
        self,
        *,
        sources: Collection[Source] = tuple(Source),
        agent: str = "",
        instance: str = "",
        policy: str = "",
        since_ns: int,
        until_ns: int = 0,
        most: int = 20_000,
    ) -> Sighted:
        if self.down:
            raise Unreachable("the telemetry cannot be read")
        found = [
            x
            for x in self.written
            if x.source in sources
            and agent in ("", x.agent)
            and instance in ("", x.instance)
            and policy in ("", x.policy)
            and since_ns <= x.time_ns
            and (not until_ns or x.time_ns < until_ns)
        ]
        return Sighted(events=tuple(found[-most:]), complete=True)
