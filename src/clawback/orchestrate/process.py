"""The warm responder: incident ids on standard input, their playbooks run, and on standard output how each ended.

In, one JSON object a line: `{"incident": "INC-…"}`. Out, one a line: `{"ready": true, "prefect": bool}` once it takes
incidents, then the fields of `End` for each that ended, and `{"error": …}` for a line that was none. What an earlier
life left unfinished is gone on with at the start. End of input: what runs is finished, then the process ends.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from clawback.config import Settings
from clawback.errors import ClawbackError, NotFound
from clawback.orchestrate.declared import Declared
from clawback.orchestrate.drift import Drift
from clawback.orchestrate.engine import Engine
from clawback.orchestrate.link import Link
from clawback.orchestrate.worker import Worker
from clawback.pauses import keep_loaded
from clawback.response import unfinished

__all__ = ["resume", "serve", "work"]

_log = structlog.get_logger()
_LINE_BYTES = 4_096
_SWITCH_SECONDS = 0.0005
"""How long Prefect's client keeps the interpreter from a playbook that wants to go on; Python's own is 5 ms, and a
containment has some forty such moments."""
_THRESHOLDS = 10_000, 20, 20
"""Of the garbage collector: the worker collects when it has nothing to do; these are for one that never rests."""


async def serve(settings: Settings, engine: Engine, declared: Sequence[Declared] = ()) -> None:
    """Run until standard input ends. What an earlier life rested is due anew: the start may be the mend."""
    for left in unfinished(engine.journal):
        engine.journal.enqueue(left)
    async with _working(settings, engine, declared) as (worker, usable):
        _say({"ready": True, "prefect": usable})
        async for line in _lines(await _standard_input()):
            incident = _incident_of(line)
            if incident is None:
                _say({"error": 'not a line of the form {"incident": "INC-…"}'})
                continue
            try:
                await worker.wake(incident)
            except NotFound:
                _say(dataclasses.asdict(await engine.run(incident)))  # whose end says that there is none
            except ClawbackError as error:
                _log.warning("not told to work", incident=incident, reason=error.message)  # the next look finds it


async def work(settings: Settings, engine: Engine, declared: Sequence[Declared] = ()) -> None:
    """Take incidents from the journal until told to stop, then finish what runs."""
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with _working(settings, engine, declared) as (_, usable):
        _say({"ready": True, "prefect": usable})
        await over.wait()


@asynccontextmanager
async def _working(
    settings: Settings, engine: Engine, declared: Sequence[Declared]
) -> AsyncIterator[tuple[Worker, bool]]:
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.set_threshold(*_THRESHOLDS)
    link = Link(settings, engine, declared)
    usable = await link.look()
    keeping = asyncio.create_task(link.keep())
    worker = Worker(engine, lambda end: _say(dataclasses.asdict(end)))
    working = asyncio.create_task(worker.run())
    drift = Drift(engine.journal, settings.drift, engine.response_to, worker.wake, busy=lambda: engine.pace.busy)
    looking = asyncio.create_task(drift.keep())
    keep_loaded()
    try:
        yield worker, usable
        looking.cancel()
        working.cancel()
        await worker.finish()
    finally:
        looking.cancel()
        working.cancel()
        keeping.cancel()
        await link.close()
        engine.close()


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
