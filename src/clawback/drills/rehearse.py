"""Run a drill from outside: give it a network and a state folder of its own, follow it, judge it, clean up after it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clawback.drills.declaration import Drill
from clawback.enforcement.features import probe
from clawback.enforcement.kernel import capabilities, libc
from clawback.errors import ClawbackError, NotEnforced
from clawback.model import Enforcement, Level

__all__ = ["Outcome", "rehearse"]

_KEPT = ("tickets", "evidence", "telemetry", "log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a drill. `incident` is the record as `clawback show --json` prints it; `problems` is empty when all
    that the drill expects was observed.
    """

    drill: str
    passed: bool
    folder: str
    problems: tuple[str, ...]
    incident: dict[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For a terminal."""
        verdict = "passed" if self.passed else "FAILED"
        times = self.incident.get("times_ms") or {}
        said = [f"{name} {value:,.1f} ms" for name, value in times.items() if value is not None]
        short = [f"  {self.levels()}"] if self.incident else []
        return [f"{self.drill}: {verdict}  {', '.join(said)}", *short, *(f"  {problem}" for problem in self.problems)]

    def levels(self) -> str:
        """One line: how much of each level of containment was observed, and why where that was not all."""
        full, short = [], []
        for level in Level:
            for receipt in self.incident.get("receipts", ()):
                if receipt["action"] != f"agent.{level.word}":
                    continue
                if receipt["enforcement"] == Enforcement.FULL:
                    full.append(level.word)
                else:
                    why = receipt["proof"].partition("not enforced: ")[2] or receipt["proof"]
                    short.append(f"{level.word} {receipt['enforcement'] or Enforcement.NONE} ({why})")
        return "; ".join([f"{', '.join(dict.fromkeys(full)) or 'no level'} full", *dict.fromkeys(short)])


def rehearse(
    drill: Drill, *, keep: Path | None = None, follow: Callable[[dict[str, Any]], None] | None = None
) -> Outcome:
    """Run it to its end. With `keep`, tickets, evidence, telemetry, logs and the journal stay in that folder, secrets
    never do. `follow` gets every line of the theatre as it comes (see `clawback.drills.theatre`).
    """
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ClawbackError(f"{keep} is not empty", hint="name a new folder")
    state = Path(tempfile.mkdtemp(prefix="clawback-", dir="/tmp"))  # short: Unix sockets' paths end at 107 characters
    state.chmod(0o755)
    try:
        return _run(drill, state, keep, follow or (lambda _line: None))
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _run(drill: Drill, state: Path, keep: Path | None, follow: Callable[[dict[str, Any]], None]) -> Outcome:
    own_network, host = _network()
    log = state / "log"
    log.mkdir()
    outcome: dict[str, Any] = {}
    error = hint = ""
    with (log / "theatre.log").open("wb") as errors:
        theatre = subprocess.Popen(
            [sys.executable, "-m", "clawback.drills.theatre", str(drill.folder), str(state), host],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            preexec_fn=own_network,  # noqa: PLW1509 - system calls only, and this process has no other thread
            text=True,
        )
        assert theatre.stdout is not None  # noqa: S101 - piped above
        try:
            for text in theatre.stdout:
                line = json.loads(text)
                if "outcome" in line:
                    outcome = line["outcome"]
                elif "error" in line:
                    error, hint = line["error"], line["hint"]
                else:
                    follow(line)
        finally:
            theatre.terminate() if theatre.poll() is None and not outcome else None
            status = theatre.wait()
    if keep is not None:
        _keep(state, keep)
    if not outcome:
        tail = (log / "theatre.log").read_text(errors="replace").strip()[-2000:]
        raise ClawbackError(
            f"{drill.name} did not come to its end: {error or f'status {status}'}", hint=hint or tail or "no log"
        )
    problems = tuple(outcome.pop("problems"))
    _retarget(outcome, state, keep)
    return Outcome(drill=drill.name, passed=not problems, folder=str(keep or ""), problems=problems, incident=outcome)


def _network() -> tuple[Callable[[], None], str]:
    """What gives a new process a network of its own, and the network namespace that the core is to run in.

    Without the right to make one, the process gets a user namespace of its own too and is root in there. Its core must
    stay there with it: back in the host's network it would have no right over the agents'.
    """
    lacking = [feature for feature in probe() if feature.required and not feature.ok]
    if lacking:
        names = ", ".join(f"{feature.name} ({feature.found})" for feature in lacking)
        raise NotEnforced(f"this host starts no sandbox: {names}", hint=lacking[0].fix)
    uid, gid = os.geteuid(), os.getegid()

    def as_root() -> None:
        libc.unshare(libc.CLONE_NEWNET)

    def as_anyone() -> None:
        libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNET)
        with suppress(FileNotFoundError):
            _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")

    if capabilities.effective(capabilities.SYS_ADMIN):
        return as_root, f"/proc/{os.getpid()}/ns/net"
    return as_anyone, "/proc/self/ns/net"


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _keep(state: Path, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    for name in _KEPT:
        if (state / name).is_dir():
            shutil.copytree(state / name, keep / name, dirs_exist_ok=True)
    for file in state.glob("journal.db*"):
        shutil.copy(file, keep / file.name)


def _retarget(outcome: dict[str, Any], state: Path, keep: Path | None) -> None:
    """Artefacts' paths as they are after the move; empty where they were not kept."""
    artefacts = outcome.get("artefacts", {})
    for name, path in artefacts.items():
        artefacts[name] = path.replace(str(state), str(keep)) if keep is not None else ""
