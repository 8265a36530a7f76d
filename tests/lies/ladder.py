"""What the ladder's levels share: the core says yes and does nothing, the hold is lifted, the kernel is undone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lies.answers import asked, yes
from lies.case import Case, Lie

from clawback.action import Action
from clawback.model import Level

__all__ = ["ladder", "level_result", "stranger", "thaw"]


def level_result(level: Level, enforcement: str = "full") -> dict[str, Any]:
    """A level's result, made up."""
    return {
        "level": int(level),
        "enforcement": enforcement,
        "observed": "as ordered, believe me",
        "missing": [],
        "elapsed_ms": 0.1,
        "counts": {},
        "at_ns": 1,
    }


def thaw(scene: Any, _outcome: Any = None) -> None:
    """By the kernel's own file."""
    Path(scene.record()["cgroup"], "cgroup.freeze").write_text("0")


def stranger(scene: Any, _outcome: Any = None) -> None:
    """A process from outside comes to live in the agent's group."""
    made = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)

    def end() -> None:
        made.kill()
        made.wait()

    scene.closing.append(end)
    Path(scene.record()["cgroup"], "cgroup.procs").write_text(str(made.pid))


def in_its_network(scene: Any, code: str) -> None:
    """Run code in the agent's network namespace."""
    namespace = os.open(f"/proc/{scene.record()['pid']}/ns/net", os.O_RDONLY)
    try:
        join = f"import ctypes; assert ctypes.CDLL(None).setns({namespace}, 0) == 0\n"
        subprocess.run([sys.executable, "-c", join + code], pass_fds=(namespace,), check=True, timeout=30)
    finally:
        os.close(namespace)


def ladder(
    action: Action[Any],
    level: Level,
    *lies: Lie,
    holds: Callable[[Any], bool] = lambda _: True,
    before: Callable[[Any], None] | None = None,
    more: Callable[[Any], dict[str, Any]] = lambda _: {},
    undone: Callable[[Any], bool] | None = None,
) -> Case:
    """One level. `holds` and `undone` look by other means than the core's."""
    revertible = action.revert is not None
    return Case(
        action=action,
        scene="host",
        before=before,
        params=lambda scene: {**scene.who, "reason": "a lie suite", **more(scene)},
        holds=lambda scene, _: holds(scene) and scene.enforced(level),
        lies=(
            *lies,
            Lie(what="somebody lifts the hold", behind=lambda scene, _: scene.let_go(level)),
            Lie(
                what="the core says full and does nothing",
                part="core",
                about=asked("POST", "/contain"),
                answer=yes(level_result(level)),
            ),
        ),
        reads=("core",),
        undone=(lambda scene, _: _lifted(scene, level) and (undone is None or undone(scene))) if revertible else None,
        revert_lies=(
            Lie(
                what="somebody orders it again",
                behind=lambda scene, _: scene.true_core.contain(
                    scene.agent, level, reason="not so fast", by="another", incident=scene.incident_id
                ),
            ),
            Lie(
                what="the core says released and does nothing",
                part="core",
                about=asked("POST", "/release"),
                answer=yes([level_result(level, "none")]),
            ),
        )
        if revertible
        else (),
        revert_reads=("core",) if revertible else (),
    )


def _lifted(scene: Any, level: Level) -> bool:
    hold = scene.true_core.agent(scene.agent).hold
    return (hold is None or level not in hold.levels) and scene.true_core.probe(
        scene.agent, level
    ).enforcement.value == "none"
