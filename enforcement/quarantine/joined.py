"""Isolation where the core has no rights over namespaces of its own: by a child that joins the agent's user namespace.

Who made a user namespace has every right in it, and none without joining it. A process with threads cannot; a fresh one
can, and is inside for as long as one order takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from clawback.enforcement.kernel import capabilities, libc
from clawback.enforcement.quarantine import isolate, tree, ways_out
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotEnforced
from clawback.model import Enforcement, Level, LevelResult

__all__ = ["isolation", "run"]

_VERBS: dict[str, Callable[..., LevelResult]] = {
    "apply": isolate.apply,
    "probe": isolate.probe,
    "release": isolate.release,
}


def isolation(verb: str, box: Sandbox, call: Run) -> LevelResult:
    """`apply`, `probe` or `release`: here where this process may enter a namespace, else by a child of `call`."""
    if capabilities.effective(capabilities.SYS_ADMIN):
        return _VERBS[verb](box)
    clock = Clock(Level.ISOLATE)
    try:
        answer = call("clawback.enforcement.quarantine.joined:run", {"box": asdict(box), "verb": verb})
    except ProcessLookupError:
        return _VERBS[verb](box)  # it has ended, and this says so
    except (OSError, NotEnforced) as error:
        problem = f"the agent's namespaces could not be joined: {error}"
        if verb == "release":
            return clock.partial(problem, "the proof of what still holds")
        return clock.none(problem, "every part of isolation")
    clock.count(**answer["counts"])
    return clock.of(Enforcement(answer["enforcement"]), answer["observed"], tuple(answer["missing"]))


def run(*, box: dict[str, Any], verb: str) -> dict[str, Any]:
    """In the child, which has one thread: join, do it, answer `enforcement`, `observed`, `missing` and `counts`."""
    sandbox = Sandbox(**box)
    own = {"own": ways_out.shims(sandbox)} if verb != "release" else {}  # from inside it could not be read
    with tree.process_folder(sandbox) as folder:
        owner = os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        libc.setns(owner, libc.CLONE_NEWUSER)
    finally:
        os.close(owner)
    result = _VERBS[verb](sandbox, **own)
    return {
        "enforcement": result.enforcement.value,
        "observed": result.observed,
        "missing": list(result.missing),
        "counts": result.counts,
    }
