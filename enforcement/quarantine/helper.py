"""Work for another process: joining a mount namespace and tracing both need one with a single thread."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from clawback.errors import NotEnforced

__all__ = ["Run", "run_alone"]

_ROOM = "clawback.enforcement.quarantine."
_SECONDS = 10.0


class Run(Protocol):
    """Runs `module:function` in a child with one thread, on plain values, and gives back its answer.

    `NotEnforced` where the child failed or did not answer in time, `OSError` where its function raised one.
    """

    def __call__(self, function: str, arguments: Mapping[str, Any], /) -> Any:
        """The function takes the mapping as keyword arguments and returns plain values."""
        ...


def run_alone(function: str, arguments: Mapping[str, Any], /) -> Any:
    """Run in a new interpreter: for callers without a spawner, and for when it is gone. Costs a start of Python."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, function],
            input=json.dumps(dict(arguments)),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotEnforced(f"{function} did not finish within {_SECONDS:g} s") from None
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise NotEnforced(f"{function} ended with status {done.returncode}: {done.stderr[-500:]}") from None
    if "error" not in answer:
        return answer["result"]
    if answer["errno"]:
        raise OSError(answer["errno"], answer["error"])
    raise NotEnforced(f"{function}: {answer['error']}")


def _main(name: str) -> None:
    if not name.startswith(_ROOM):
        raise SystemExit(f"{name} is not a quarantine function")
    module, _, attribute = name.partition(":")
    try:
        answer = {"result": getattr(importlib.import_module(module), attribute)(**json.load(sys.stdin))}
    except OSError as error:
        answer = {"error": str(error), "errno": error.errno}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}", "errno": None}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
