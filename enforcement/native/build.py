"""Compile `clawback-shim`. Imports nothing of the package: the wheel's build runs it too, before there is one.

python build.py [FOLDER]    into this folder by default
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["NAME", "compile_into", "compiler", "digest"]

NAME = "clawback-shim"
HERE = Path(__file__).resolve().parent
"""Where the sources are."""

_WARNINGS = ["-Wall", "-Wextra", "-Wshadow"]
_HARDENED = [
    "-fstack-protector-strong",
    "-D_FORTIFY_SOURCE=2",
    "-fPIE",
    "-fno-plt",
    "-Wl,-z,relro,-z,now,-z,noexecstack",
]
# A program without a loader starts sooner and has fewer pages of its own; not every system has a static C library.
_LINKING = [["-static-pie"], ["-static"], ["-pie"]]


def sources() -> list[Path]:
    """The C files and their header."""
    return sorted([*HERE.glob("*.c"), *HERE.glob("*.h")])


def digest() -> str:
    """Of the sources: the program says which it was made from, and one made from others is not used."""
    total = hashlib.sha256()
    for path in sources():
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def compiler() -> str | None:
    """The C compiler: $CC, or the first of the usual names."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name.split()[0])):
            return found
    return None


def compile_into(folder: Path) -> str:
    """Put the program into a folder; the empty string, or why there is none."""
    if not sys.platform.startswith("linux"):
        return f"{sys.platform} is not Linux"
    command = compiler()
    if command is None:
        return "there is no C compiler"
    files = [str(path) for path in sources() if path.suffix == ".c"]
    said = ""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch, NAME)
        for linking in _LINKING:
            options = ["-std=c11", "-Os", f'-DCLAWBACK_RECIPE="{digest()}"', *_WARNINGS, *_HARDENED, *linking, "-s"]
            done = subprocess.run(
                [command, *options, *files, "-o", str(program)], capture_output=True, text=True, check=False
            )
            if done.returncode == 0 and _runs(program):
                folder.mkdir(parents=True, exist_ok=True)
                fresh = folder / f".{NAME}.{os.getpid()}"
                shutil.copyfile(program, fresh)
                fresh.chmod(0o755)
                fresh.replace(folder / NAME)  # one in use is not written to
                return ""
            said = said or done.stderr
    return f"{command} failed: {said.strip()[-2000:]}"


def _runs(program: Path) -> bool:
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == digest()
