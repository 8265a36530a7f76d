"""Each attempt to get out, from inside real sandboxes, before quarantine and under it; and that each can get out."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

ATTEMPTS = sorted((Path(__file__).parent / "attempts").glob("*.py"), key=lambda path: int(path.name.partition("_")[0]))
CELLS = [
    ("default", "before"), ("default", "isolate"), ("default", "restrict"), ("default", "seal"), ("minimal", "before"),
    ("minimal", "seal"),
]  # fmt: skip
ROOTLESS = [("default", "before"), ("default", "isolate"), ("default", "restrict"), ("default", "seal")]
CAPABILITIES = {"CAP_SYS_RESOURCE": 24}


def about(path: Path) -> dict[str, str]:
    """The front matter of an attempt, `key: value`."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines[1:] if line)}


ABOUT = {path.stem: about(path) for path in ATTEMPTS}


def _hole(reason: str, rootless: bool) -> Any:
    return [pytest.mark.xfail(strict=True, reason=reason)] if reason and rootless else []


def cases(cells: list[tuple[str, str]], *, rootless: bool = False) -> Any:
    """Every attempt at each level that it is about."""
    made = [
        pytest.param(cell, name, id=f"{'-'.join(cell)}-{name}", marks=_hole(found.get("rootless hole", ""), rootless))
        for cell in cells
        for name, found in ABOUT.items()
        if cell[1] in found.get("levels", cell[1])
    ]
    return pytest.mark.parametrize(("cell", "name"), made)


def judged(result: dict[str, Any], name: str, *, allowed: str = "") -> None:
    """Refused by its own word, and nothing of it seen from outside."""
    if result["outcome"] in ("impossible-here", "not-here"):
        pytest.skip(result["sentence"])
    assert not result["seen"], f"{name} was seen to get out: {result['seen']}; it says: {result['sentence']}"
    if result["outcome"] == "silent":
        assert "may fall silent" in ABOUT[name], f"{name} did not end"
    elif allowed:
        # A level that does not hold in full must have said so.
        assert result["outcome"] == "refused" or result["result"]["missing"], result
    else:
        assert result["outcome"] == "refused", f"{name} got out: {result['sentence']}"


@cases(CELLS)
def test_refused(cell: tuple[str, str], name: str, matrix: Any) -> None:
    judged(matrix[*cell, name], name)
    assert not matrix[*cell, "*"]["seen"], "after its end"


@cases([("default", "before")])
def test_refused_in_python(cell: tuple[str, str], name: str, in_python: Any) -> None:
    judged(in_python[*cell, name], name)


@cases(ROOTLESS, rootless=True)
def test_refused_without_root(cell: tuple[str, str], name: str, rootless: Any) -> None:
    judged(rootless[*cell, name], name, allowed=ABOUT[name].get("rootless", ""))


@pytest.mark.parametrize("name", [name for name, found in ABOUT.items() if not found["unconfined"].startswith("none")])
def test_works_unconfined(name: str, unconfined: Any) -> None:
    """The same program, where nothing stops it, gets out: a refusal is the sandbox's doing."""
    result = unconfined["none", "unconfined", name]
    if result["outcome"] == "impossible-here" or "ENOSYS" in result["sentence"]:
        pytest.skip(f"this kernel has nothing of the kind: {result['sentence']}")
    needed = ABOUT[name].get("unconfined needs", "")
    if needed and not _has(needed):
        pytest.skip(f"this machine's root lacks {needed}")
    assert result["outcome"] == "escaped", f"{name} cannot get out anywhere: {result['sentence']}"
    if "seen from outside" in ABOUT[name]:
        assert result["seen"], "and nobody saw it"


def _has(capability: str) -> bool:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return os.geteuid() == 0 and bool(int(line.split()[1], 16) >> CAPABILITIES[capability] & 1)
