"""Collect the evidence of one agent: a bounded, redacted, hashed snapshot that never thaws, opens or asks the agent."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clawback.enforcement.evidence import transcripts as written
from clawback.enforcement.evidence.clean import Cleaner
from clawback.enforcement.evidence.memory import dump
from clawback.enforcement.evidence.process import process
from clawback.enforcement.evidence.writer import Limits, Writer
from clawback.enforcement.kernel import netlink
from clawback.enforcement.quarantine import cover, freeze, inside, tree
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import InvalidInput, NotEnforced
from clawback.model import EvidenceBundle

__all__ = ["collect"]

FORMAT = "clawback-evidence/1"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_RECORDS = ("agent.json", "exit.json", "restrictions.json", "restrict.json", "seal.json")
_GROUP_FILES = (
    "cgroup.procs", "cgroup.events", "cgroup.freeze", "cgroup.stat", "cpu.stat", "cpu.max", "memory.current",
    "memory.peak", "memory.max", "memory.events", "pids.current", "pids.peak", "pids.max", "pids.events",
    "cpu.cfs_quota_us", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes",
)  # fmt: skip
_SECRET_BYTES = 64 << 10
_GONE = (FileNotFoundError, ProcessLookupError)


def collect(
    box: Sandbox,
    folder: Path | str,
    *,
    incident: str = "",
    telemetry: Path | None = None,
    secrets: Sequence[str] = (),
    limits: Limits | None = None,
    memory: bool = False,
    transcripts: Sequence[str] = (),
) -> EvidenceBundle:
    """Write a bundle under `folder` (`folder/INCIDENT` where an incident is named) and return where it is.

    `telemetry` is the folder of `*.jsonl` files (the state's own by default); `secrets` are values to take out beside
    those that the agent holds. A sandbox that has ended still leaves its records, output and telemetry.
    With `memory` the tree's own memory too, if it is frozen: see `memory.NOTE` for what that holds.
    With `transcripts`, patterns of files inside, the bundle is of those and the agent's records alone.
    `InvalidInput` for an incident that is no name, `NotEnforced` where the disk is too full for a manifest, `OSError`
    where the folder cannot be written.
    """
    began = time.perf_counter()
    if incident and not _NAME.match(incident):
        raise InvalidInput(f"incident {incident[:64]!r} is no name", hint="letters, digits, `.`, `_` and `-`")
    patterns = written.check(transcripts)
    home = Path(folder, incident) if incident else Path(folder)
    writer = Writer(home / f"{box.instance}-{time.time_ns()}", limits or Limits())
    state = Path(box.folder).parents[2]
    cleaner = Cleaner([*secrets, *_known_secrets(box, state)])
    steps: dict[str, Callable[[], None]] = {
        "records": lambda: _records(box, writer, cleaner),
        "processes": lambda: _processes(box, writer, cleaner),
        "sockets": lambda: _sockets(box, writer, cleaner),
        "cgroup": lambda: _groups(box, writer, cleaner),
        "mounts": lambda: _mounts(box, writer, cleaner),
        "output": lambda: _output(box, writer, cleaner),
        "telemetry": lambda: _telemetry(box, telemetry or state / "telemetry", writer, cleaner),
    }
    if patterns:
        steps = {"records": steps["records"], "transcripts": lambda: written.copy(box, patterns, writer, cleaner)}
    if memory:
        steps["memory"] = lambda: dump(box, writer, cleaner)
    stood = _stands(box)
    for name, step in steps.items():
        if writer.late:
            writer.truncated.append(f"{name}: not read, the time was over")
            continue
        try:
            step()
        except _GONE:
            writer.truncated.append(f"{name}: the sandbox has ended")
        except PermissionError as error:
            writer.truncated.append(f"{name}: {error.strerror}")
    try:
        manifest, digest, files = writer.finish(
            {**_facts(box, incident), "state": {"before": stood, "after": _stands(box)}}
        )
    except OSError as error:
        raise NotEnforced(
            f"no evidence of {box.agent} could be kept: {error.strerror}", hint=f"make room in {home} and ask again"
        ) from None
    return EvidenceBundle(
        folder=str(writer.folder),
        manifest=str(manifest),
        sha256=digest,
        files=files,
        bytes=writer.bytes,
        truncated=tuple(writer.truncated),
        elapsed_ms=(time.perf_counter() - began) * 1000,
    )


def _stands(box: Sandbox) -> str:
    """Whether the tree stood still: what is told of one that runs may contradict itself."""
    if tree.gone(box):
        return "ended"
    return "frozen" if box.cgroup and freeze.frozen(box) else "running"


def _facts(box: Sandbox, incident: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "incident": incident,
        "agent": box.agent,
        "instance": box.instance,
        "policy": box.policy,
        "policy_version": box.policy_version,
        "collected_ns": time.time_ns(),
        "kernel": os.uname().release,
        "boot": tree.read("/proc/sys/kernel/random/boot_id").strip(),
    }


def _known_secrets(box: Sandbox, state: Path) -> list[str]:
    """Values that the agent holds, from where they lie inside and from the store. They stay in memory."""
    found = []
    # Every version that the store still has, also those that no agent was given yet.
    paths = [*state.glob(f"secrets/{box.agent}/*"), *state.glob(f"secrets/{box.agent}/*/v-*/value")]
    try:
        with tree.process_folder(box):
            paths += [Path(f"/proc/{box.pid}/root{path}") for path in cover.secrets(box)]
    except _GONE:
        pass  # ended: nothing lies inside any more, the store's are enough
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # not a file, or taken away meanwhile
        try:
            found.append(os.read(descriptor, _SECRET_BYTES).decode("utf-8", "backslashreplace"))
        except IsADirectoryError:
            continue
        finally:
            os.close(descriptor)
    return found


def _records(box: Sandbox, writer: Writer, cleaner: Cleaner) -> None:
    for name in _RECORDS:
        try:
            text = tree.read(f"{box.folder}/{name}", limit=256 << 10)
        except FileNotFoundError:
            if name == "agent.json":
                writer.json(name, cleaner.value(asdict(box)))
            continue
        try:
            writer.json(name, cleaner.value(json.loads(text)))
        except ValueError:
            writer.text(name, cleaner.text(text))


def _processes(box: Sandbox, writer: Writer, cleaner: Cleaner) -> None:
    pids = tree.processes(box)
    if not pids:
        writer.truncated.append("processes: the sandbox has ended")
    most = writer.limits.processes
    found: list[dict[str, Any]] = []
    for number, pid in enumerate(pids):
        if number >= most or writer.late:
            writer.truncated.append(f"processes: {number} of {len(pids)}")
            break
        try:
            found.append(process(pid, cleaner, descriptors=writer.limits.descriptors, truncated=writer.truncated))
        except _GONE:
            continue
    writer.json("processes.json", found)


def _sockets(box: Sandbox, writer: Writer, cleaner: Cleaner) -> None:
    with inside.opened(box, (inside.ROUTE, inside.DIAG)) as (route, diag):
        found = [
            {
                "protocol": "tcp" if one.protocol == 6 else "udp",
                "local": f"{one.local}:{one.local_port}",
                "remote": f"{one.remote}:{one.remote_port}",
                "state": one.state,
                "listening": one.listening,
                "uid": one.uid,
                "inode": one.inode,
            }
            for one in netlink.sockets(diag)[:4096]
        ]
        links = [asdict(link) for link in netlink.links(route)]
        addresses = [address.text for address in netlink.addresses(route)]
    with tree.process_folder(box) as folder:
        unix = cleaner.text(tree.read("net/unix", dir_fd=folder, limit=256 << 10)).splitlines()
    writer.json("sockets.json", {"links": links, "addresses": addresses, "inet": found, "unix": unix})


def _groups(box: Sandbox, writer: Writer, cleaner: Cleaner) -> None:
    found: dict[str, dict[str, str]] = {}
    for group in dict.fromkeys(group for group in (box.cgroup, *box.controllers.values()) if group):
        found[group] = {}
        for name in _GROUP_FILES:
            try:
                found[group][name] = tree.read(f"{group}/{name}", limit=16 << 10).strip()
            except OSError:
                continue  # this hierarchy has no such file
    writer.json("cgroup.json", cleaner.value(found))


def _mounts(box: Sandbox, writer: Writer, cleaner: Cleaner) -> None:
    with tree.process_folder(box) as folder:
        writer.text("mountinfo.txt", cleaner.text(tree.read("mountinfo", dir_fd=folder, limit=256 << 10)))


def _output(box: Sandbox, writer: Writer, cleaner: Cleaner) -> None:
    path = Path(box.folder, "output.log")
    if not path.is_file():
        return
    text, cut = _tail(path, writer.limits.tail)
    if cut:
        writer.truncated.append(f"output.log: the last {writer.limits.tail} bytes")
    writer.text("output.log", cleaner.text(text)[-writer.limits.tail :])


def _telemetry(box: Sandbox, folder: Path, writer: Writer, cleaner: Cleaner) -> None:
    """Lines about this instance, newest kept: of the end of each file, whole lines that are JSON and name it."""
    for path in sorted(folder.glob("*.jsonl")):
        text, cut = _tail(path, 8 * writer.limits.tail)
        kept: list[str] = []
        room = writer.limits.tail
        for line in reversed(text.splitlines()):
            if f'"{box.instance}"' not in line:
                continue
            try:
                value = cleaner.value(json.loads(line))
            except ValueError:
                continue  # a line cut at the start of the tail, or not ours
            kept.append(json.dumps(value))
            room -= len(kept[-1]) + 1
            if room < 0:
                cut = True
                break
        if cut:
            writer.truncated.append(f"telemetry-{path.name}: older lines left out")
        writer.text(f"telemetry-{path.name}", "".join(line + "\n" for line in reversed(kept)))


def _tail(path: Path, limit: int) -> tuple[str, bool]:
    """The end of a file, a little more than `limit` bytes, so that no secret is cut in two where the tail begins."""
    margin = _SECRET_BYTES
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size - limit - margin)
        file.seek(start)
        return file.read(limit + margin).decode("utf-8", "backslashreplace"), size > limit
