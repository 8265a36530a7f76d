"""Restriction in one process: cover the secrets, leave a holder behind, then try from inside what still opens.

In this order: what lies under a cover is not asked about, and what is tried is tried against all of it. Joining a mount
namespace is for good, so the covers are laid by a child, and what is tried comes last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from clawback.enforcement.quarantine import cover, holder, openings
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["run"]


def run(*, box: dict[str, Any], readable: list[str] | None) -> dict[str, Any]:
    """`readable` is the holder's order; None makes none, and leaves the one that is there.

    Answers with `cover`, `holder` and `inside` what `cover.run`, `holder.run` and `openings.inside` answer, or for one
    that failed `error` and `errno`.
    """
    answer = {"cover": _in_child(lambda: cover.run(box=box, lift=False))}
    if readable is not None:
        before = openings.record(Sandbox(**box))
        answer["holder"] = _outcome(lambda: holder.run(box=box, readable=readable))
        if "error" not in answer["holder"]:
            openings.end(before)  # only now: at no moment does nobody hold
    answer["inside"] = _outcome(lambda: openings.inside(box=box))
    return answer


def _outcome(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return step()
    except OSError as error:
        return {"error": str(error), "errno": error.errno}


def _in_child(step: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    answer, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(end, "w") as file:
                json.dump(_outcome(step), file)
        finally:
            os._exit(0)
    os.close(end)
    with os.fdopen(answer) as file:
        text = file.read()
    os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(text) if text else {"error": "the child that covers died", "errno": None}
    return found
