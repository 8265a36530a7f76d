"""The engine's link to Prefect: made when its server answers, made anew when that comes back elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import structlog

from clawback.config import Settings
from clawback.services.prefect_server import client_environment

if TYPE_CHECKING:
    from clawback.orchestrate.declared import Declared
    from clawback.orchestrate.engine import Engine
    from clawback.orchestrate.flow import Prefect

__all__ = ["Link", "api_urls"]

_log = structlog.get_logger()

LOOK_SECONDS = 1.0
RECONCILE_EVERY = 30  # looks


def api_urls(settings: Settings) -> list[tuple[str, bool]]:
    """Where Prefect may be, likeliest first, and whether that is this state folder's own server."""
    own = _own(settings.state)
    named = settings.prefect.api_url or ""
    # A named address may be that of our own server before it was started again on another port.
    return [(url, url == own) for url in dict.fromkeys((named, own)) if url]


def _own(state: Path) -> str:
    try:
        return (state / "prefect" / "api_url").read_text().strip()
    except FileNotFoundError:
        return ""


class Link:
    """Keeps `engine.prefect` true to whether Prefect answers. A run that finds it wrong is safe: it goes on without.

    declared   what Prefect is to offer for launch, by this process; none: nothing
    """

    def __init__(self, settings: Settings, engine: Engine, declared: Sequence[Declared] = ()) -> None:
        self._settings = settings
        self._engine = engine
        self._declared = declared
        self._url = ""
        self._prefect: Prefect | None = None
        self._holder: asyncio.Task[None] | None = None

    async def look(self) -> bool:
        """Look once, and connect or let go accordingly; true when Prefect can be used."""
        urls = await asyncio.to_thread(api_urls, self._settings)
        answering = [pair for pair in urls if await _answers(pair[0])]
        if not answering:
            self._engine.prefect = None
            return False
        url, own = answering[0]
        if self._prefect is None or url != self._url:
            await self.close()
            held = asyncio.get_running_loop().create_future()
            self._holder = asyncio.create_task(self._hold(url, held, own=own))
            await asyncio.wait({held, self._holder}, return_when=asyncio.FIRST_COMPLETED)
            if not held.done():
                return False
            self._url, self._prefect = url, held.result()
        if self._engine.prefect is None:
            self._engine.prefect = self._prefect
            try:
                _log.info("prefect answers", reconciled=await self._engine.reconcile())
            except Exception as error:
                _log.warning("prefect: not reconciled", error=type(error).__name__)
        return True

    async def keep(self) -> None:
        """Look again and again."""
        while True:
            for _ in range(RECONCILE_EVERY):
                await asyncio.sleep(LOOK_SECONDS)
                if await self.look() and self._engine.behind:
                    break
            try:
                await self._engine.reconcile()  # `clawback resume` may have finished what a flow was killed in
            except Exception as error:
                _log.warning("prefect: not reconciled", error=type(error).__name__)

    async def close(self) -> None:
        """Close the clients."""
        self._engine.prefect = self._prefect = None
        if self._holder is not None:
            self._holder.cancel()
            await asyncio.wait({self._holder})
            self._holder = None

    async def _hold(self, url: str, held: asyncio.Future[Prefect], *, own: bool) -> None:
        """Open the clients and keep them open; contexts must be left by the task that entered them."""
        environment = client_environment(self._settings.state, url, authenticated=own)
        os.environ.update(environment)  # Prefect reads its settings when it is first imported
        try:
            flow = await asyncio.to_thread(importlib.import_module, "clawback.orchestrate.flow")
            async with flow.Prefect(tag(self._settings), url) as prefect:
                held.set_result(prefect)
                await self._offer(prefect)
        except Exception as error:
            _log.warning("prefect cannot be used", error=type(error).__name__)

    async def _offer(self, prefect: Prefect) -> None:
        """Until cancelled: take what is launched and answered there, if this process is one that does."""
        if not self._declared:
            await asyncio.Event().wait()
        launches: Any = importlib.import_module("clawback.orchestrate.launches")
        offered = launches.Launches(prefect.client, prefect.tag, self._engine, self._declared)
        keeping = [asyncio.create_task(offered.keep())]
        mode = self._settings.approvals.prefect
        if mode != "off":
            gates: Any = importlib.import_module("clawback.orchestrate.gates")
            gate = gates.Gates(prefect.client, prefect.tag, self._engine.journal, self._settings.state, mode)
            keeping.append(asyncio.create_task(gate.keep()))
        try:
            await asyncio.wait(keeping)
        finally:
            for task in keeping:
                task.cancel()
            await offered.stop()


def tag(settings: Settings) -> str:
    """Marks this journal's runs on a Prefect server that others use as well."""
    return "clawback:" + hashlib.sha256(settings.journal.encode()).hexdigest()[:12]


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=1.0) as client:
            return (await client.get(f"{url}/health")).status_code == 200
    except httpx.HTTPError:
        return False
