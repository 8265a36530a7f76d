"""Kinds of credentials, one file each: what is issued from one, whether it lives, how it is closed.

Adding a kind adds a file that exports `KIND`, and edits no other.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache

from clawback.actions._issuers._kind import Kind

__all__ = ["Kind", "kinds"]


@lru_cache(maxsize=1)
def kinds() -> Mapping[str, Kind]:
    """By name, in the order in which they are closed: what could make new ones first."""
    found: list[Kind] = [
        importlib.import_module(f"{__name__}.{module.name}").KIND
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    ]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: (kind.order, kind.name))}
