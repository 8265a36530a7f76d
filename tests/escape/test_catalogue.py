"""What every attempt says of itself, and the table that is made of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ATTEMPTS = sorted((HERE / "attempts").glob("*.py"), key=lambda path: int(path.name.partition("_")[0]))
KEYS = {
    "gain", "attack", "stopped by", "unconfined", "unconfined needs", "also refused by", "alone", "levels", "needs",
    "may fall silent", "seen from outside", "host does", "rootless", "rootless hole",
}  # fmt: skip
BOUNDARIES = {
    "seccomp", "Landlock", "capabilities", "no_new_privs", "mount flags", "mount namespace", "pid namespace",
    "network namespace", "user namespace", "IPC namespace", "UTS namespace", "cgroup namespace", "cgroup",
    "ptrace check", "read-only mounts", "private /dev", "masks", "limits", "pids limit", "RLIMIT_NPROC",
    "memory limit", "tmpfs size", "tmpfs inodes", "bounded output", "bounded telemetry", "gateway", "gateway limits",
    "no resolver", "peer check", "peer rights", "closed descriptors", "strict reading of outcomes",
    "suspended filters", "reading back", "freezing what is not sealed", "withdrawn addresses", "destroyed sockets",
    "paths without links",
}  # fmt: skip


def front(path: Path) -> tuple[str, dict[str, str]]:
    title, _, rest = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")
    pairs = (line.partition(":") for line in rest.splitlines() if line)
    return title, {key: value.strip() for key, _, value in pairs}


@pytest.mark.parametrize("path", ATTEMPTS, ids=lambda path: path.stem)
def test_front_matter(path: Path) -> None:
    title, found = front(path)
    assert title.endswith(".")
    assert found.keys() <= KEYS
    assert {"gain", "attack", "stopped by", "unconfined"} <= found.keys()
    assert re.fullmatch(r"T\d{4}(\.\d{3})?", found["attack"])
    assert {one.strip() for one in found["stopped by"].split(",")} <= BOUNDARIES
    assert re.fullmatch(r"host|user|cell|none: .+", found["unconfined"])
    assert set(found.get("levels", "").replace(",", " ").split()) <= {"before", "isolate", "restrict", "seal"}


def test_numbers_are_their_own() -> None:
    numbers = [path.name.partition("_")[0] for path in ATTEMPTS]
    assert len(set(numbers)) == len(numbers) >= 100


def table() -> str:
    lines = ["| attempt | what it would gain | ATT&CK | stopped by |", "|---|---|---|---|"]
    for path in ATTEMPTS:
        title, found = front(path)
        number = path.name.partition("_")[0]
        lines.append(f"| {number} {title[:-1]} | {found['gain']} | {found['attack']} | {found['stopped by']} |")
    return "\n".join(lines) + "\n"


def test_the_table_is_current() -> None:
    """To write it anew: `python tests/escape/test_catalogue.py`."""
    assert (HERE / "README.md").read_text().endswith(table())


if __name__ == "__main__":
    readme = HERE / "README.md"
    head = readme.read_text().partition("| attempt |")[0]
    readme.write_text(head + table())
