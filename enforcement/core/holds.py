"""Holds on disk: written and flushed before the kernel is touched, so that nothing that crashes can forget one."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from clawback.errors import InvalidInput
from clawback.model import Hold, Level

__all__ = ["Holds"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
_HOLD = TypeAdapter(Hold)
_log = structlog.get_logger()


class Holds:
    """`STATE/holds/AGENT.json`, one file per held agent, mode 0600; the files are the truth, memory only a copy.

    A file that cannot be read holds its agent at every reversible level: a damaged order is no permission.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._held: dict[str, Hold] = {}
        for path in sorted(folder.glob("*.json")):
            self._held[path.stem] = _read(path)
        for left in folder.glob(".*.new"):
            left.unlink()  # written by a core that died before the rename: that hold was never acknowledged

    def get(self, agent: str) -> Hold | None:
        """The hold that stands, if one does."""
        return self._held.get(agent)

    def all(self) -> tuple[Hold, ...]:
        """Every hold that stands."""
        return tuple(self._held.values())

    def add(self, agent: str, level: Level, *, reason: str, by: str, incident: str, at_ns: int) -> Hold:
        """Hold the agent at one more level; durable when this returns. The first order's time stays."""
        with self._lock:
            before = self._held.get(agent)
            if before is not None and level in before.levels:
                return before
            hold = Hold(
                agent=agent,
                levels=tuple(sorted({*(before.levels if before else ()), level})),
                reason=reason,
                by=by,
                incident=incident or (before.incident if before else ""),
                placed_ns=before.placed_ns if before else at_ns,
            )
            self._write(hold)
            return hold

    def remove(self, agent: str, levels: tuple[Level, ...]) -> Hold | None:
        """Take levels out of the hold; what is left of it, None when nothing is. Durable when this returns."""
        with self._lock:
            before = self._held.get(agent)
            if before is None:
                return None
            left = tuple(level for level in before.levels if level not in levels)
            if left:
                hold = Hold(
                    agent=agent,
                    levels=left,
                    reason=before.reason,
                    by=before.by,
                    incident=before.incident,
                    placed_ns=before.placed_ns,
                )
                self._write(hold)
                return hold
            self._path(agent).unlink(missing_ok=True)
            self._flush_folder()
            del self._held[agent]
            return None

    def _path(self, agent: str) -> Path:
        if not _NAME.fullmatch(agent):
            raise InvalidInput("agent: not a name", hint="letters, digits, dots and dashes; at most 63")
        return self._folder / f"{agent}.json"

    def _write(self, hold: Hold) -> None:
        path = self._path(hold.agent)
        new = path.with_name(f".{hold.agent}.new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, _HOLD.dump_json(hold))
            os.fsync(fd)
        finally:
            os.close(fd)
        new.rename(path)
        self._flush_folder()
        self._held[hold.agent] = hold

    def _flush_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _read(path: Path) -> Hold:
    try:
        hold = _HOLD.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        _log.error("hold unreadable; the agent is held at freeze and isolate", path=str(path))
        return Hold(
            agent=path.stem, levels=(Level.FREEZE, Level.ISOLATE), reason="the hold's file is unreadable", by="core"
        )
    if hold.agent != path.stem:
        return Hold(agent=path.stem, levels=hold.levels, reason=hold.reason, by=hold.by, incident=hold.incident)
    return hold
