"""Sees whether declared local models answer, and says so in the routing stream: sensitive queries have no other way.

Answering means taking a connection, which is closed at once: no query is made up. With several, one that answers is
enough. Wildcards and endpoints without a port cannot be tried, and say nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from clawback.enforcement.gateway.destinations import Destinations, ForbiddenAddressError, UnreachableHostError
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import InferenceEndpoint, InferenceKind, Lifecycle, Severity

__all__ = ["LocalModels"]

EVERY_SECONDS = 30.0
_PATIENCE = 5.0
_MOST = 8


class LocalModels:
    """`declared` gives the endpoints as they are now."""

    def __init__(
        self,
        declared: Callable[[], Sequence[InferenceEndpoint]],
        destinations: Destinations,
        routing: TelemetryWriter,
    ) -> None:
        self._declared = declared
        self._destinations = destinations
        self._routing = routing

    async def follow(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Try each, side by side, and report; nothing where there is none to try."""
        local = [
            one for one in self._declared() if one.kind is InferenceKind.LOCAL and one.port and "*" not in one.host
        ][:_MOST]
        if not local:
            return
        said = await asyncio.gather(*(self._try(one) for one in local))
        there = any(not why for why in said)
        self._routing.emit(
            Lifecycle,
            activity_id=Lifecycle.OTHER,
            severity=Severity.INFORMATIONAL if there else Severity.MEDIUM,
            component="local-model",
            status="available" if there else "unavailable",
            message="; ".join(
                f"{one.host}:{one.port}: {why or 'answers'}" for one, why in zip(local, said, strict=True)
            ),
        )

    async def _try(self, endpoint: InferenceEndpoint) -> str:
        """Why it does not answer; empty where it does."""
        try:
            async with asyncio.timeout(_PATIENCE):
                addresses = await self._destinations.addresses(endpoint.host, endpoint.port)
                (await self._destinations.connect(addresses, endpoint.port)).close()
        except (UnreachableHostError, ForbiddenAddressError, OSError) as error:  # a time-out is an OSError
            return str(error) or "no answer in time"
        return ""
