"""Run the interpreter of these tests as an ordinary user, even where it lies in root's home.

For the child alone, in a mount namespace of its own, each closed folder on the way to what it needs is covered by an
open one that shows nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import clawback

USER = 65_531
ROOT = Path(clawback.__file__).resolve().parents[2]

# Imports nothing but the kernel's wall: it runs as root.
ENTER = """
import os, sys
from clawback.enforcement.kernel import capabilities, libc, mounts

user, count = int(sys.argv[1]), int(sys.argv[2])
folders, command = sys.argv[3 : 3 + count], sys.argv[3 + count :]

def closed(folder):
    parts = folder.split("/")
    steps = ["/".join(parts[:n]) for n in range(2, len(parts) + 1)]
    return next((step for step in steps if not os.stat(step).st_mode & 1), None)

libc.unshare(libc.CLONE_NEWNS)
mounts.make_private()
covered = {}
for folder in folders:
    if (door := closed(folder)) is not None:
        covered.setdefault(door, []).append((folder, mounts.detached(folder, flags=mounts.MS_NOSUID)))
for door, shown in covered.items():
    mounts.tmpfs(door)
    for folder, tree in shown:
        os.makedirs(folder, exist_ok=True)
        mounts.attach(tree, folder)
os.chdir("/")
capabilities.drop_bounding()
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
os.execv(command[0], command)
"""


def _needed() -> list[str]:
    """Folders that the interpreter, its packages and this checkout lie in, outer ones first, none inside another."""
    found = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.prefix), sys.prefix, str(ROOT)}
    # A pyenv's `bin` may be a link to elsewhere, and be what the virtual environment points to.
    found |= {str(Path(os.path.realpath(sys.executable)).parents[1])}
    return sorted(one for one in found if not any(one.startswith(f"{other}/") for other in found))


AsUser = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of the user's own, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="cb-user-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def as_user(home: Path) -> AsUser:
    """Call it with arguments for the interpreter. Skips where root finds none that an ordinary user may run.

    Who is no root runs it as it is.
    """
    user = os.geteuid() or USER
    folders = _needed()
    enter = [sys.executable, "-c", ENTER, str(user), str(len(folders)), *folders] if user == USER else []
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}

    def go(*arguments: str, timeout: float = 150.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*enter, sys.executable, *arguments],
            env=environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    seen = go("-c", "import os, clawback, prefect; print(os.getuid())")
    if seen.stdout.strip() != str(user):
        pytest.skip(f"no interpreter that an ordinary user may run: {_last(seen.stderr)}")
    return go


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
