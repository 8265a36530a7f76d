"""What all tests share: short state folders, and a check that nothing outlives the run."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

# `memory_world.world` …: tests of several rooms act in it, and must all see the same classes.
_WORLD = sys.modules.setdefault("memory_world", types.ModuleType("memory_world"))
_WORLD.__path__ = [str(Path(__file__).with_name("memory_world"))]

PR_SET_CHILD_SUBREAPER = 36
# What a test starts and leaves becomes this process's child, however often it forked, and is seen below.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _cgroups() -> set[str]:
    found: set[str] = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" - ")
        if fields[1].split()[0] in ("cgroup", "cgroup2"):
            root = Path(fields[0].split()[4])
            found |= {str(path) for path in root.glob("clawback*") if path.is_dir()}
    return found


def _namespaces() -> set[str]:
    return {str(path) for path in Path("/run/netns").glob("*")} if Path("/run/netns").is_dir() else set()


def _mounts() -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines if "clawback" in line.lower()}


def _processes() -> set[str]:
    """All living descendants of this process."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state != "Z":
            parents[int(folder.name)], names[int(folder.name)] = int(parent), name
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {f"{pid} {names[pid][:100]}" for pid in ours - {os.getpid()}}


def _groups_and_mounts() -> set[str]:
    return _cgroups() | _mounts() | _namespaces()


class _Leftovers:
    """Of several workers none can tell whose a group or a mount is: whoever started them looks for all.

    Fails the run if a cgroup, mount or named network namespace of it is still there, and says when each was first seen.
    """

    def __init__(self) -> None:
        self.before = self.known = _groups_and_mounts()
        self.seen: dict[str, str] = {}
        self.said = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            now = _groups_and_mounts()
            self.seen = {name: when for name, when in self.seen.items() if name in now}
            self.seen |= dict.fromkeys(now - self.known, report.nodeid)
            self.known = now

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        with Path(tempfile.gettempdir(), f"clawback-tests-{os.getuid()}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.said = "another run of these tests is on: groups and mounts left behind not looked for"
                return
            left = sorted(_groups_and_mounts() - self.before)
        if left:
            places = (f"{name} (first seen when {self.seen.get(name, 'all tests')} had ended)" for name in left)
            self.said = f"left behind: {', '.join(places)}"
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self) -> None:
        if self.said:
            print(self.said)  # after all else, where the last lines of a long log show it


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(_Leftovers())


@pytest.fixture
def there(tmp_path: Path) -> Any:
    """The world in memory; `there.world` is what actions see."""
    from memory_world.world import MemoryWorld

    return MemoryWorld(tmp_path / "evidence")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails the run if a process, cgroup, mount or named network namespace of it is still there at its end.

    Groups, mounts and names are the machine's: whose they are cannot be told while another run of these tests is on it.
    """
    with Path(tempfile.gettempdir(), f"clawback-tests-{os.getuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        before = (_cgroups(), _mounts(), _namespaces())
        yield
        left = {"processes": _processes()}
        if "PYTEST_XDIST_WORKER" in os.environ:
            assert not left["processes"], f"left behind: {sorted(left['processes'])}"
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            warnings.warn(
                "another run of these tests is on: groups and mounts left behind not looked for", stacklevel=1
            )
        else:
            left["cgroups"] = _cgroups() - before[0]
            left["mounts"] = _mounts() - before[1]
            left["network namespaces"] = _namespaces() - before[2]
    assert not any(left.values()), f"left behind: { {kind: sorted(names) for kind, names in left.items() if names} }"


@pytest.fixture(autouse=True)
def _default_logging() -> Iterator[None]:
    """A test that configures logging binds it to the standard error of that test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def state() -> Iterator[Path]:
    """An empty state folder with a path short enough for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
