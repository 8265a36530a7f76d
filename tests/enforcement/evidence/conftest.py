"""The sandboxes of the quarantine's tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_path = Path(__file__).parents[1] / "quarantine" / "conftest.py"
_spec = importlib.util.spec_from_file_location("quarantine_sandboxes", _path)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)

spawner = _module.spawner
make = _module.make
