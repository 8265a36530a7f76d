"""The matrix is made once for all tests here, by processes of its own, and only as much of it as was asked for."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
Results = dict[tuple[str, str, str], dict[str, Any]]


def _module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_rootless = _module("clawback_tests_rootless", HERE.parent / "rootless" / "conftest.py")
home, as_user = _rootless.home, _rootless.as_user


def _selected(request: pytest.FixtureRequest, test: str) -> tuple[list[list[str]], list[str]]:
    """Cells and names of the tests of this function that are to run."""
    cells: dict[tuple[str, str], None] = {}
    names: dict[str, None] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test and item.path.parent == HERE:
            cells[item.callspec.params.get("cell", ("none", "unconfined"))] = None
            names[item.callspec.params["name"]] = None
    return [list(cell) for cell in cells], list(names)


def _parsed(text: str) -> Results:
    found: Results = {}
    for line in text.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            found[one["profile"], one["level"], one["name"]] = one
    return found


class Cells(dict[tuple[str, str, str], dict[str, Any]]):
    """The results of a cell of the matrix are made when the first of them is asked for: by who has tests of it."""

    def __init__(self, request: pytest.FixtureRequest, test: str, run: Callable[..., Any]) -> None:
        super().__init__()
        self._make = lambda cell: _results(request, test, run, cell)
        self._made: set[tuple[str, str]] = set()

    def __missing__(self, key: tuple[str, str, str]) -> dict[str, Any]:
        cell = key[:2]
        if cell in self._made:
            raise KeyError(key)
        self._made.add(cell)
        self.update(self._make(cell))
        return self[key]


def _results(
    request: pytest.FixtureRequest, test: str, run: Callable[..., Any], only: tuple[str, str] | None = None
) -> Results:
    cells, names = _selected(request, test)
    cells = [cell for cell in cells if only in (None, tuple(cell))]
    done = run(str(HERE / "run.py"), json.dumps({"cells": cells, "names": names}))
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    return _parsed(done.stdout)


def _as_root(*arguments: str, way: str = "") -> Any:
    if os.geteuid() != 0:
        pytest.skip("needs root: outer user ids, cgroups, and something of root's to be attacked")
    environment = {**os.environ, **({"CLAWBACK_SHIM": way} if way else {})}
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    ) as running:
        try:
            said, complained = running.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            running.terminate()  # it takes away what it made
            said, complained = running.communicate(timeout=60)
        return subprocess.CompletedProcess(command, running.returncode, said, complained)


@pytest.fixture(scope="session")
def matrix(request: pytest.FixtureRequest) -> Results:
    """(profile, level, name) → result, as root."""
    return Cells(request, "test_refused", _as_root)


@pytest.fixture(scope="session")
def in_python(request: pytest.FixtureRequest) -> Results:
    """The same in sandboxes that the compiled shim had no part in."""
    return _results(request, "test_refused_in_python", lambda *more: _as_root(*more, way="python"))


@pytest.fixture(scope="session")
def unconfined(request: pytest.FixtureRequest) -> Results:
    """The same, where nothing stops it."""
    return _results(request, "test_works_unconfined", _as_root)


KEPT: dict[str, Results] = {}


@pytest.fixture
def rootless(request: pytest.FixtureRequest) -> Results:
    """The same under a core without root."""
    if "rootless" not in KEPT:
        as_user = request.getfixturevalue("as_user")  # looks for an interpreter: once
        KEPT["rootless"] = _results(request, "test_refused_without_root", lambda *more: as_user(*more, timeout=300))
    return KEPT["rootless"]
