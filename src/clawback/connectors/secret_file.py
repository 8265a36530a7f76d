"""A secret of Clawback's own that a setting names by its file: read when first needed, and only if nobody else can."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from clawback.errors import InvalidInput

__all__ = ["read_secret"]

_MAX_BYTES = 8192


def read_secret(path: Path, setting: str) -> str:
    """The file's one line. `InvalidInput` where it is missing, empty, too long, or open to others than its owner."""
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read(_MAX_BYTES + 1).decode("ascii").strip()
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}", hint=f"{setting} names a file that holds the secret") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: not plain text", hint=f"{setting} names a file that holds the secret") from None
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidInput(f"{path}: others than its owner may use it", hint=f"chmod 600 {path}")
    if not text or len(text) > _MAX_BYTES or len(text.splitlines()) > 1:
        raise InvalidInput(f"{path}: not one line", hint=f"{setting} names a file that holds the secret alone")
    return text
