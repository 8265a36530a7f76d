"""The playbook's surroundings: a real journal on disk, and the actions' world in memory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from clawback.journal import Journal


@pytest.fixture
def there(tmp_path: Path) -> Any:
    """`tests/actions/memory.py`'s world."""
    name = "tests_actions_memory"
    if name not in sys.modules:
        source = Path(__file__).parent.parent / "actions" / "memory.py"
        spec = importlib.util.spec_from_file_location(name, source)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name].MemoryWorld(tmp_path / "evidence")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'journal.db'}")
