"""The compiled shim: whether there is one to use, and which way sandboxes are made."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clawback.enforcement.native.build import NAME, digest
from clawback.errors import InvalidInput

__all__ = ["VARIABLE", "Way", "way"]

VARIABLE = "CLAWBACK_SHIM"
"""`native` or `python` in the environment forces one way."""


@dataclass(frozen=True, slots=True)
class Way:
    """`program` is the compiled shim, None for the way in Python; `why` says so in words."""

    program: Path | None
    why: str


def way() -> Way:
    """How this core makes sandboxes. `InvalidInput` where the environment asks for what is not there."""
    forced = os.environ.get(VARIABLE, "")
    if forced not in {"", "native", "python"}:
        raise InvalidInput(
            f"{VARIABLE}: {forced!r} is neither native nor python", hint="unset it to let Clawback choose"
        )
    if forced == "python":
        return Way(None, f"in Python: {VARIABLE} says so")
    program = Path(__file__).with_name(NAME)
    problem = _problem(program)
    if not problem:
        return Way(program, "compiled")
    if forced:
        raise InvalidInput(f"{VARIABLE}: {problem}", hint="python -m clawback.enforcement.native compiles it")
    return Way(None, f"in Python: {problem}")


def _problem(program: Path) -> str:
    if not program.is_file():
        return f"{NAME} was not compiled when Clawback was installed"
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{NAME} does not run: {error}"
    if done.returncode or done.stdout.strip() != digest():
        return f"{NAME} was made from other sources than those here"
    return ""
