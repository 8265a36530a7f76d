"""Work for another process: joining a mount namespace and tracing both need one with a single thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Run"]


class Run(Protocol):
    """Runs `module:function` in a forked child with one thread, on plain values, and gives back its answer.

    `ClawbackError` where the child failed or did not answer in time.
    """

    def __call__(self, function: str, arguments: Mapping[str, Any], /) -> dict[str, Any]:
        """The function takes the mapping and returns another."""
        ...
