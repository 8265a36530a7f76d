"""No module is loaded from a file any more: for a process that goes where an agent decides what lies at a path."""

from __future__ import annotations

import sys
from importlib.machinery import BuiltinImporter, FrozenImporter

__all__ = ["close"]


def close() -> None:
    """Leave the interpreter what it has loaded and what is built into it; any other import is `ModuleNotFoundError`.

    `sys.path` names folders of the host, and the standard library imports late, where a name needs an encoding or an
    error its words. In an agent's mount namespace those paths may lead to the agent's files, run with the rights of
    whoever came to look. Cannot be undone.
    """
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
