"""One launch, as the core does it: hand the job over, look at what holds, write it down, let the command start."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from clawback.enforcement.kernel import cgroups, landlock, mounts
from clawback.enforcement.sandbox import cage, layers, making, tree, wire
from clawback.enforcement.sandbox.files import start_ticks
from clawback.enforcement.sandbox.job import Job
from clawback.enforcement.sandbox.launched import Launched
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.sandbox.slot import Caged, Failed, Slot
from clawback.errors import InvalidInput, NotEnforced
from clawback.model import Enforcement

__all__ = ["launch"]

_LAUNCH_TIMEOUT = 30.0
_CALLER_S = {errno.ENOENT, errno.EACCES, errno.ENOEXEC}
_ENDED = {errno.ENOENT, errno.ESRCH, errno.ENODEV}  # of a process or a group that is gone: its shim says why
_NO_LISTENER = {errno.EINVAL, errno.EBUSY}  # none in the kernel, and one there already: a thread has one at most


@cache
def _host() -> tuple[bool, int]:
    """(whether mounts may be taken of the host, its Landlock ABI): neither changes while a core runs."""
    return making.may_mount(), landlock.abi()


def _own_writable(mount: int, uid: int) -> None:
    """Give a writable folder of root's to the agent, which could not write there otherwise; not what lies in it.

    By the descriptor of what is shown: a path could lead elsewhere by now. A file by one name only: another name may be
    where it is somebody else's.
    """
    found = os.fstat(mount)
    if found.st_uid == 0 and (stat.S_ISDIR(found.st_mode) or found.st_nlink == 1):
        os.chown(f"/proc/self/fd/{mount}", uid, uid)


def _hand_over(slot: Slot, job: Job, secrets: Mapping[str, str], stdio: tuple[int, int, int] | None) -> None:
    mounted, _ = _host()
    shown = cage.bound(job)
    writable = {path for path, allowed in job.binds if allowed}
    with ExitStack() as opened:
        trees: list[int] = []
        for path, source, flags, _folder in shown if mounted else ():
            trees.append(mounts.detached(source, flags=flags))
            opened.callback(os.close, trees[-1])
            if path in writable:
                _own_writable(trees[-1], slot.uid)
        own = () if stdio else (slot.folder.output,)
        message = cage.second_part(job, shown, secrets, mounted=mounted, stdio=stdio is not None)
        fds = (slot.folder.descriptor, slot.folder.ending, *own, *(stdio or ()), *trees)
        if len(fds) > wire.MAX_FDS:
            raise InvalidInput(f"agent {job.agent}: {len(shown)} paths to show, {wire.MAX_FDS - 5} at most")
        wire.send_bytes(slot.sock, message, fds)


def _limit(leaf: cgroups.Leaf, job: Job) -> dict[str, bool]:
    return cgroups.set_limits(
        leaf,
        memory=job.max_memory,
        cpu=job.max_cpu,
        # One more than the policy says, for the init.
        processes=None if job.max_processes is None else job.max_processes + 1,
    )


def _write_restrictions(slot: Slot, job: Job) -> None:
    given = job.restrictions
    body = {name: getattr(given, name) for name in given.__dataclass_fields__}
    slot.folder.restrictions(wire.encode(body | {"read": [*given.read, *tree.bait(job.canaries)]}))


def _record(
    job: Job,
    slot: Slot,
    caged: Caged,
    secrets: Mapping[str, str],
    canaries: tuple[str, ...],
    seen: dict[str, Enforcement],
) -> Sandbox:
    return Sandbox(
        agent=job.agent,
        instance=job.instance,
        pid=caged.pid,
        start_ticks=start_ticks(caged.pid),
        shim_pid=caged.shim,
        shim_start_ticks=start_ticks(caged.shim),
        uid=slot.uid,
        cgroup=caged.leaf.unified,
        folder=job.folder,
        policy=job.policy,
        policy_version=job.policy_version,
        command=job.command,
        started_ns=time.time_ns(),
        controllers=caged.leaf.controllers,
        secrets=tuple(secrets),
        canaries=canaries,
        layers=seen,
    )


def launch(
    slot: Slot,
    job: Job,
    secrets: Mapping[str, str],
    stdio: tuple[int, int, int] | None,
    prepared: Callable[[Sandbox], None] | None,
) -> Launched:
    """See `Spawner.launch`. On any failure the shim takes the sandbox down and nothing of it is left."""
    slot.sock.settimeout(_LAUNCH_TIMEOUT)
    try:
        launched = _launch(slot, job, secrets, stdio, prepared)
    except Failed as failure:
        slot.sock.close()
        slot.folder.remove()
        if failure.number in _CALLER_S and job.command[0] in str(failure):
            raise InvalidInput(
                f"agent {job.agent}: command: {failure}",
                hint="it must exist and be executable inside the sandbox; `readable` shows more of the host",
            ) from None
        if job.restrictions.syscalls.escalates and failure.number in _NO_LISTENER and "seccomp" in str(failure):
            raise NotEnforced(
                f"agent {job.agent}: no sandbox: the policy escalates system calls, and this kernel gives no listener"
                f" for them ({failure}); Linux has it since 5.0",
                hint="a policy without `escalate`; what already listens to the core's own calls leaves no room for it",
            ) from None
        raise NotEnforced(
            f"agent {job.agent}: no sandbox: {failure}", hint="`clawback doctor` says what is missing"
        ) from None
    except (wire.Closed, ConnectionError, TimeoutError) as error:
        slot.sock.close()
        slot.folder.remove()
        raise NotEnforced(f"agent {job.agent}: the sandbox died while it was being made: {error}") from None
    except OSError as error:
        slot.dismiss()
        raise NotEnforced(f"agent {job.agent}: no sandbox: {error}") from None
    except BaseException:
        slot.dismiss()  # `prepared` failed: the shim sees it and takes the sandbox down
        raise
    slot.sock.settimeout(None)
    return launched


def _launch(
    slot: Slot,
    job: Job,
    secrets: Mapping[str, str],
    stdio: tuple[int, int, int] | None,
    prepared: Callable[[Sandbox], None] | None,
) -> Launched:
    _hand_over(slot, job, secrets, stdio)
    if stdio:
        slot.folder.discard_output()
    # While the first process works on the tree, this one does its own work.
    _write_restrictions(slot, job)
    try:
        caged = slot.await_cage()
        limits = _limit(caged.leaf, job)
    except OSError as error:
        if error.errno in _ENDED:
            slot.hear()
        raise
    message, _ = slot.hear()
    report = message["prepared"]
    _, abi = _host()
    seen = layers.observe_restricted(
        caged.pid,
        uid=slot.uid,
        limits=limits,
        report=report | {"landlock": abi},
        host_uid=os.getuid(),
        cage=caged.layers,
    )
    if report["escalates"]:
        seen["escalation"] = Enforcement.FULL
    for layer in job.required:
        if seen.get(layer, Enforcement.NONE) is Enforcement.NONE:
            raise OSError(errno.ENOTSUP, f"the policy requires {layer}, and it does not hold here")
    placed = zip(job.canaries, report["canaries"], strict=True)
    record = _record(job, slot, caged, secrets, tuple(path for path, there in placed if there == "1"), seen)
    # On disk before the command starts: an agent that nobody could find again must never run.
    slot.folder.publish(wire.encode(record), Path(record.folder))
    if prepared:
        prepared(record)
    wire.send_bytes(slot.sock, b"")
    _, fds = slot.hear()
    slot.folder.close()
    listener = fds[0]
    if not job.network:
        os.close(listener)
        listener = -1
    return Launched(record, listener, slot.sock)
