"""The rehearsal as a module, and running it in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).with_name("rehearsal.py")


@pytest.fixture(scope="session")
def rehearsal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash_rehearsal", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def life(rehearsal: ModuleType) -> Callable[..., int]:
    """One life of a process: runs the rehearsal in a child, returns how it ended (0, or minus the signal)."""

    def run(*arguments: object) -> int:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                rehearsal.main([str(item) for item in arguments])
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run
