"""One outer user id per agent, the same at every launch, remembered in `STATE/agents/AGENT/uid`."""

from __future__ import annotations

import threading
from pathlib import Path

from clawback.enforcement.sandbox.files import write_atomically
from clawback.errors import NotEnforced

__all__ = ["Uids", "remember"]

_COUNT = 65_536


def remember(agent_folder: Path, uid: int) -> None:
    """Bind an id to an agent, before anything of it runs."""
    write_atomically(agent_folder / "uid", f"{uid}\n")


class Uids:
    """Gives out ids from `base` on. An id once given to an agent is never another's: files on disk may carry it."""

    def __init__(self, agents: Path, base: int) -> None:
        self._agents = agents
        self._base = base
        self._lock = threading.Lock()
        taken = [uid for file in agents.glob("*/uid") if (uid := self._read(file)) is not None]
        self._next = max([base - 1, *(uid for uid in taken if base <= uid < base + _COUNT)]) + 1

    @staticmethod
    def _read(file: Path) -> int | None:
        text = file.read_text(encoding="utf-8", errors="replace").strip()
        return int(text) if text.isascii() and text.isdigit() else None

    def known(self, agent: str) -> int | None:
        """The agent's id, if it ever had one."""
        file = self._agents / agent / "uid"
        return self._read(file) if file.exists() else None

    def reserve(self) -> int:
        """An id that nobody has."""
        with self._lock:
            if self._next >= self._base + _COUNT:
                raise NotEnforced(
                    "no outer user ids are left", hint="remove agents that are gone from the state folder"
                )
            self._next += 1
            return self._next - 1
