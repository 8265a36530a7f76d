"""How agents end, and whoever waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.watchdog import Ending
from clawback.errors import Unreachable

__all__ = ["Ends"]

_UNKNOWN_STATUS = 255


class Ends:
    """`ended` is the watchdog's to call, once for each entry."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waiting: set[asyncio.Future[None]] = set()
        self._leaving = False

    async def wait(self, agent: str, instance: str) -> int:
        """The exit status, when there is one. `Unreachable` where the core ends first: the agent lives on."""
        entry = self._parts.entry(agent, instance=instance)
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._leaving:
            left.set_result(None)
        self._waiting.add(left)
        try:
            # Waited for and not awaited: a caller that goes away must not cancel the end for the others who wait.
            either: set[asyncio.Future[Any]] = {asyncio.wrap_future(entry.ended), left}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(left)
        if not entry.ended.done():
            raise Unreachable("the core ends", hint="the agent lives on: ask the next core")
        return entry.ended.result()

    def leave(self) -> None:
        """Send those who wait away. To be called in the loop that serves them."""
        self._leaving = True
        for left in self._waiting:
            if not left.done():
                left.set_result(None)

    def ended(self, entry: Entry, ending: Ending) -> None:
        """Take away its way out, and tell those who wait."""
        self._parts.link.remove(entry.box.instance)
        self.record(entry, ending)

    @staticmethod
    def record(entry: Entry, ending: Ending) -> None:
        """Note how it ended."""
        entry.state = ending.state
        entry.exit_status = ending.exit_status
        if not entry.ended.done():
            entry.ended.set_result(_UNKNOWN_STATUS if ending.exit_status is None else ending.exit_status)
