"""How agents end, and whoever waits for it."""

from __future__ import annotations

import asyncio

from clawback.enforcement.core.entry import Entry
from clawback.enforcement.core.parts import Parts
from clawback.enforcement.core.watchdog import Ending

__all__ = ["Ends"]

_UNKNOWN_STATUS = 255


class Ends:
    """`ended` is the watchdog's to call, once for each entry."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def wait(self, agent: str, instance: str) -> int:
        """The exit status, when there is one."""
        entry = self._parts.entry(agent, instance=instance)
        # Shielded: a caller that goes away must not cancel the end for the others who wait.
        return await asyncio.shield(asyncio.wrap_future(entry.ended))

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
