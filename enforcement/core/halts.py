"""Standing orders by selector: one file each, flushed once however many agents it holds."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from clawback.enforcement import durable
from clawback.errors import InvalidInput, NotFound
from clawback.model import Halt, Level, Order, Selector, SelectorKind

__all__ = ["Halts", "check_selector"]

_FORMAT = "clawback-halt/1"
_ID = re.compile(r"HALT-[A-Z0-9-]{1,40}")
_VALUE = re.compile(r"[^\x00-\x1f\x7f]{1,128}")
_HALT = TypeAdapter(Halt)
_log = structlog.get_logger()


def check_selector(selector: Selector) -> Selector:
    """As it came. `InvalidInput` for a value where there is none to give, or none where one is needed."""
    if selector.kind is SelectorKind.ALL:
        if selector.value:
            raise InvalidInput("selector: all takes no value", hint="tenant, team, tag and tree do")
    elif not _VALUE.fullmatch(selector.value):
        raise InvalidInput(f"selector: {selector.kind} needs a value of at most 128 characters")
    return selector


class Halts:
    """`STATE/halts/ID.json`, mode 0600. One that cannot be read, or is not as it was written, holds every agent: nobody
    can say any more whom it meant, and a damaged order is no permission.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        self._standing: dict[str, Halt] = {}
        self.damaged: tuple[str, ...] = ()
        for path in sorted(folder.glob("*.json")):
            self._standing[path.stem] = self._read(path)
        durable.sweep(folder)

    def all(self) -> tuple[Halt, ...]:
        """Those that stand."""
        return tuple(self._standing.copy().values())

    def get(self, halt: str) -> Halt:
        """One of them. `NotFound`."""
        found = self._standing.get(halt)
        if found is None:
            raise NotFound(f"no halt {halt[:64]!r} stands", hint="clawback halts lists them")
        return found

    def stand(self, halt: Halt) -> None:
        """From now on every start that it matches is refused. Not durable yet: `write` it."""
        with self._lock:
            self._standing[halt.id] = halt

    def write(self, halt: Halt) -> None:
        """On disk when this returns."""
        durable.write(self._path(halt.id), f"{_FORMAT} {halt.id}", _HALT.dump_json(halt))

    def stands(self, halt: Halt) -> bool:
        """It has not been lifted."""
        return halt.id in self._standing

    def withdraw(self, halt: Halt) -> None:
        """It orders nothing any more, while the file still stands for a core that starts anew."""
        with self._lock:
            self._standing.pop(halt.id, None)

    def remove(self, halt: Halt) -> None:
        """Gone from the disk when this returns."""
        durable.remove(self._path(halt.id))

    def mark(self, ids: Iterable[str]) -> tuple[Halt, ...]:
        """Note, durably, that these are due. Those that were not before."""
        with self._lock:
            found = [
                replace(halt, order=replace(halt.order, due=True))
                for one in ids
                if (halt := self._standing.get(one)) and not halt.order.due
            ]
            for halt in found:
                self.write(halt)
                self._standing[halt.id] = halt
            return tuple(found)

    def _path(self, halt: str) -> Path:
        if not _ID.fullmatch(halt):
            raise InvalidInput("halt: not an id", hint="clawback halts lists them")
        return self._folder / f"{halt}.json"

    def _read(self, path: Path) -> Halt:
        try:
            halt = _HALT.validate_json(durable.read(path, f"{_FORMAT} {path.stem}"))
            if halt.id == path.stem and halt.order.levels:
                return halt
        except (InvalidInput, ValidationError):
            pass  # said below, and held
        _log.error("halt unreadable; every agent is held at freeze and isolate", path=str(path))
        self.damaged += (path.stem,)
        return Halt(
            id=path.stem,
            selector=Selector(kind=SelectorKind.ALL),
            order=Order(
                levels=(Level.FREEZE, Level.ISOLATE),
                reason="the halt's file is unreadable",
                by="core",
                placed_ns=path.lstat().st_mtime_ns,
                halt=path.stem,
            ),
        )
