"""The warm responder: incident ids on standard input, their playbooks run, and on standard output how each ended.

In, one JSON object a line: `{"incident": "INC-…"}`. Out, one a line: `{"ready": true, "prefect": bool}` once it takes
incidents, then the fields of `End` for each that ended, and `{"error": …}` for a line that was none. What an earlier
life left unfinished is gone on with at the start. End of input: what runs is finished, then the process ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import structlog

from clawback.config import Settings
from clawback.errors import ClawbackError
from clawback.journal import Journal
from clawback.orchestrate.again import Again
from clawback.orchestrate.drift import Drift
from clawback.orchestrate.engine import End, Engine
from clawback.orchestrate.link import Link
from clawback.response import unfinished

__all__ = ["resume", "serve"]

_log = structlog.get_logger()
_LINE_BYTES = 4_096
_HEED_SECONDS = 0.25  # one query, 0.3 ms


async def serve(settings: Settings, engine: Engine) -> None:
    """Run until standard input ends."""
    link = Link(settings, engine)
    reader = await _standard_input()
    usable = await link.look()
    keeping = asyncio.create_task(link.keep())
    heeding = asyncio.create_task(_heed(engine.journal, lambda incident: start(incident)))  # noqa: PLW0108 - as below
    tasks: set[asyncio.Task[End]] = set()

    again = Again(asyncio.get_running_loop(), lambda incident: start(incident))  # noqa: PLW0108 - defined below

    def ended(task: asyncio.Task[End]) -> None:
        tasks.discard(task)
        if not task.cancelled() and task.exception() is None:
            end = task.result()
            _say(dataclasses.asdict(end))
            again.after(end)

    def start(incident: str) -> None:
        task = engine.start(incident)
        if task is not None:
            tasks.add(task)
            task.add_done_callback(ended)

    drift = Drift(engine.journal, settings.drift, engine.response_to, start)
    looking = asyncio.create_task(drift.keep())
    for left in unfinished(engine.journal):
        start(left)
    _say({"ready": True, "prefect": usable})
    try:
        async for line in _lines(reader):
            incident = _incident_of(line)
            if incident is None:
                _say({"error": 'not a line of the form {"incident": "INC-…"}'})
            else:
                start(incident)
        if tasks:
            await asyncio.wait(tasks)
    finally:
        again.stop()
        looking.cancel()
        keeping.cancel()
        heeding.cancel()
        await link.close()
        engine.close()


async def _heed(journal: Journal, start: Callable[[str], None]) -> None:
    """Go on with an incident as soon as somebody granted or denied what it waits for."""
    known: set[str] = set()
    while True:
        try:
            found = await asyncio.to_thread(journal.decided)
        except ClawbackError as error:
            _log.warning("approvals could not be looked at", reason=error.message)
            found = ()
        for approval, incident in found:
            if approval not in known:
                start(incident)
        known = {approval for approval, _ in found}  # what is left of it by then waits for something else
        await asyncio.sleep(_HEED_SECONDS)


async def resume(settings: Settings, engine: Engine) -> None:
    """Go on with every open incident, say how each ended, and end."""
    link = Link(settings, engine)
    await link.look()
    try:
        for end in await engine.resume_all():
            _say(dataclasses.asdict(end))
    finally:
        await link.close()
        engine.close()


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever asked is gone; the journal has it
        _log.warning("nobody reads the responder's output", **message)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _incident_of(line: bytes) -> str | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    incident = message.get("incident") if isinstance(message, dict) else None
    return incident if isinstance(incident, str) and 0 < len(incident) <= 64 else None


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    return reader


async def _lines(reader: asyncio.StreamReader) -> Any:
    while True:
        try:
            line = await reader.readline()
        except ValueError:  # longer than a line may be; what was read of it is dropped
            yield b""
            continue
        if not line:
            return
        if line.strip():
            yield line
