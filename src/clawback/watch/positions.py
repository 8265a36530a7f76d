"""Remember durably how far each telemetry file was read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from clawback.model import Source
from clawback.watch.tail import Position

__all__ = ["load", "save"]

_POSITIONS = TypeAdapter(dict[Source, Position])

_log = structlog.get_logger()


def load(path: Path) -> dict[Source, Position]:
    """What was saved. Empty where nothing was, or nothing usable: reading from the start repeats and loses nothing."""
    try:
        return _POSITIONS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        _log.error("reading positions lost; all telemetry is read again", path=str(path), error=type(error).__name__)
        return {}


def save(path: Path, positions: Mapping[Source, Position]) -> None:
    """Replace the file, so that a crash leaves the old or the new one. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    content = json.dumps({str(source): asdict(position) for source, position in positions.items()})
    try:
        with draft.open("w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
