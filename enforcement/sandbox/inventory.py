"""All sandboxes on record: which run, which have ended, which are lost; and the removal of what a dead one left."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from clawback.enforcement.kernel import cgroups
from clawback.enforcement.sandbox.files import start_ticks
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import InvalidInput
from clawback.model import AgentState, Enforcement

__all__ = ["exit_status", "is_process", "load", "parse", "read_all", "remove", "state"]

_FIELDS = {item.name for item in fields(Sandbox)}


def parse(data: dict[str, Any]) -> Sandbox:
    """A record from its JSON form. `ValueError` or `TypeError` where it is not one."""
    known = {key: value for key, value in data.items() if key in _FIELDS}
    for key in ("command", "secrets", "canaries"):
        known[key] = tuple(known.get(key, ()))
    known["layers"] = {name: Enforcement(value) for name, value in known.get("layers", {}).items()}
    return Sandbox(**known)


def load(folder: str | Path) -> Sandbox:
    """The record in one folder. `InvalidInput` where it cannot be read."""
    path = Path(folder, "agent.json")
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{path}: not a sandbox record: {error}", hint="move the folder away to go on without it"
        ) from None


def read_all(state_folder: Path) -> tuple[tuple[Sandbox, ...], tuple[str, ...]]:
    """(every readable record, oldest first; what is wrong with each unreadable one)."""
    records: list[Sandbox] = []
    problems: list[str] = []
    for path in state_folder.glob("agents/*/*/agent.json"):
        try:
            records.append(load(path.parent))
        except InvalidInput as error:
            problems.append(error.message)
    return tuple(sorted(records, key=lambda record: record.started_ns)), tuple(problems)


def is_process(pid: int, ticks: int) -> bool:
    """Whether that very process lives (a zombie does not)."""
    try:
        if start_ticks(pid) != ticks:
            return False
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def state(record: Sandbox) -> AgentState:
    """Running while its first process lives; then exited if its shim wrote how, else lost.

    Between the process's end and the shim's writing it is still called running: that is a moment, not a loss.
    """
    if is_process(record.pid, record.start_ticks):
        return AgentState.RUNNING
    if exit_status(record) is not None:
        return AgentState.EXITED
    if is_process(record.shim_pid, record.shim_start_ticks):
        return AgentState.RUNNING
    return AgentState.EXITED if exit_status(record) is not None else AgentState.LOST


def exit_status(record: Sandbox) -> int | None:
    """The command's exit status, None while there is none."""
    try:
        return int(json.loads(Path(record.folder, "exit.json").read_text())["status"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{record.folder}/exit.json: {error}") from None


def remove(record: Sandbox) -> bool:
    """Take away a dead sandbox's cgroup leaves; its folder stays as the record. True when nothing is left of them."""
    leaf = cgroups.Leaf(record.cgroup, dict(record.controllers))
    return cgroups.remove_leaf(leaf, kill=not is_process(record.pid, record.start_ticks))
