"""How the command line talks: data on stdout, as a table or as JSON; `error:` and `hint:` on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clawback.errors import ClawbackError
from clawback.log import redact, redact_text
from clawback.reports.jsonable import jsonable

__all__ = ["console", "fail", "print_json", "safe", "table"]

# Where nobody looks at a terminal, lines are for grep: not folded.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)

_CELL = 120


def print_json(value: Any) -> None:
    """One JSON document on stdout: dataclasses as objects, enums as words, secrets taken out."""
    sys.stdout.write(json.dumps(redact(jsonable(value)), indent=2, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def safe(value: object, limit: int = _CELL) -> str:
    """Text that a terminal can be shown: no control or direction characters, no markup, bounded."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return escape(text if len(text) <= limit else text[: limit - 1] + "…")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table on stdout, or the sentence `empty`."""
    lines = [[safe(cell) for cell in row] for row in rows]
    if not lines:
        console.print(empty)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for line in lines:
        grid.add_row(*line)
    console.print(grid)


def fail(error: ClawbackError) -> int:
    """Say what went wrong on stderr; returns the exit status."""
    sys.stderr.write(f"error: {redact_text(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"hint: {redact_text(error.hint)}\n")
    return error.exit_status
