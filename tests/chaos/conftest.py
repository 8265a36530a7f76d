"""The whole house of `tests/system`, for the trials that kill real parts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _house() -> ModuleType:
    name = "chaos_house"
    if name not in sys.modules:
        source = Path(__file__).parent.parent / "system" / "conftest.py"
        spec = importlib.util.spec_from_file_location(name, source)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


house = _house().house
