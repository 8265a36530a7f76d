"""What every part of the settings is: frozen, and without keys that nobody knows."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Section",
    "is_private",
]


def is_private(url: str) -> bool:
    """Whether what is sent there is seen by nobody else: by TLS, or because it does not leave the machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1", "localhost"})


class Section(BaseModel):
    """One key of the file and what is under it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
