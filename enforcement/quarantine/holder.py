"""Refuse an agent every opening of a file and every exec, for as long as it is restricted: a pair of small processes.

The kernel asks about each opening and lets everybody through once nobody holds the asking group any more. So two
processes hold it: one answers, the other starts it anew when it dies or is stopped, and the first, should the other
die, takes its place. While only one of the two is dead, who opens a file waits. They outlive the core, and end with the
sandbox or by release. Only the agent's own processes are refused; others that come by its mounts (evidence, proofs) are
not.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from clawback.enforcement.kernel import libc
from clawback.enforcement.kernel.open_gate import Asked, OpenGate, beneath
from clawback.enforcement.quarantine import tree
from clawback.enforcement.quarantine.mounted import Mount, mounts
from clawback.enforcement.sandbox.record import Sandbox

__all__ = ["RECORD", "run"]

RECORD = "restrict-holder.json"
"""In the sandbox's folder: `pids`, process → start ticks; `descriptor` of the group in them; `readable` paths."""

_PR_SET_NAME = 15
_ST_RDONLY = 1
_NEVER = frozenset({"proc"})


def run(*, box: dict[str, Any], readable: list[str]) -> dict[str, Any]:
    """Mark every mount, then leave the pair behind. `readable`: paths that may still be opened where they lie on
    read-only mounts, with what is below them.

    Answers `failed`, path → why it is not asked about. `PermissionError` where the kernel lets us hold nobody.
    """
    sandbox = Sandbox(**box)
    gate = OpenGate()
    failed = {}
    with tree.process_folder(sandbox) as folder:
        root = os.open("root", os.O_PATH | os.O_CLOEXEC, dir_fd=folder)
        for mount in mounts(sandbox):
            if mount.kind in _NEVER:
                continue
            try:
                _mark(gate, root, mount)
            except OSError as error:
                failed[mount.path] = str(error.strerror)
        space = os.stat("ns/pid", dir_fd=folder).st_ino
    first, second = os.pipe()
    if os.fork() == 0:
        try:
            _detach(gate, second)
            _Pair(sandbox, gate, tuple(readable), space).guard(second)
        finally:
            os._exit(70)
    os.close(second)
    os.read(first, 1)  # it answers from here on, or the pipe's end says that it does not
    for descriptor in (first, root, gate.fileno()):
        os.close(descriptor)  # held by us, who do not answer, it would let an opener wait for ever
    return {"failed": failed}


def _mark(gate: OpenGate, root: int, mount: Mount) -> None:
    descriptor = beneath(root, mount.path)
    try:
        gate.mark(descriptor)
    finally:
        os.close(descriptor)


def _detach(gate: OpenGate, pipe: int) -> None:
    """A session of its own, no memory's victim, and nothing open but what it needs."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    os.chdir("/")
    last = 0
    for kept in sorted((gate.fileno(), pipe)):
        libc.close_range(last, kept - 1)
        last = kept + 1
    libc.close_range(last)
    gc.disable()


@dataclass
class _Pair:
    box: Sandbox
    gate: OpenGate
    readable: tuple[str, ...]
    space: int

    def guard(self, pipe: int | None) -> NoReturn:
        """Keep an answering process alive until it ends because the sandbox has."""
        while True:
            libc.prctl(_PR_SET_NAME, "clawback-holder")
            me = os.pidfd_open(os.getpid())
            worker = os.fork()
            if worker == 0:
                if pipe is not None:
                    os.close(pipe)
                self._answer(me)
            os.close(me)
            self._publish(os.getpid(), worker)
            if pipe is not None:
                os.close(pipe)
                pipe = None
            _, status = os.waitpid(worker, os.WUNTRACED)
            if os.WIFSTOPPED(status):  # who opens a file would wait for as long as it does, the core too
                os.kill(worker, signal.SIGKILL)
                os.waitpid(worker, 0)
            elif os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
                os._exit(0)
            self.gate.deny_lost()

    def _answer(self, guard: int) -> NoReturn:
        """In the second process: answer until the sandbox ends; become the guard when that one dies."""
        poll = select.poll()
        poll.register(self.gate, select.POLLIN)
        poll.register(guard, select.POLLIN)
        with contextlib.suppress(ProcessLookupError):
            poll.register(agent := os.pidfd_open(self.box.pid), select.POLLIN)
            if tree.start_ticks(self.box.pid) == self.box.start_ticks:
                while True:
                    ready = {descriptor for descriptor, _event in poll.poll()}
                    for asked in self.gate.read():
                        self.gate.answer(asked, denied=self._denied(asked))
                    if agent in ready:
                        break
                    if guard in ready:
                        os.close(guard)
                        os.close(agent)
                        self.guard(None)
        os._exit(0)

    def _denied(self, asked: Asked) -> bool:
        """What cannot be decided is denied."""
        try:
            if not self._ours(asked.pid):
                return False
            if not self.readable or not os.fstatvfs(asked.descriptor).f_flag & _ST_RDONLY:
                return True
            path = str(Path(f"/proc/self/fd/{asked.descriptor}").readlink())
            return not any(path == one or path.startswith(f"{one.rstrip('/')}/") for one in self.readable)
        except OSError:
            return True

    def _ours(self, pid: int) -> bool:
        """By the pid namespace, that nothing inside can leave, or by the agent's own user id."""
        if Path(f"/proc/{pid}/ns/pid").stat().st_ino == self.space:
            return True
        return self.box.uid != os.getuid() and Path(f"/proc/{pid}").stat().st_uid == self.box.uid

    def _publish(self, *pids: int) -> None:
        # A full disk must not keep it from answering: then the probe finds no record, and says so.
        with contextlib.suppress(OSError):
            text = json.dumps(
                {
                    "pids": {str(pid): tree.start_ticks(pid) for pid in pids},
                    "descriptor": self.gate.fileno(),
                    "readable": list(self.readable),
                }
            )
            draft = Path(self.box.folder, RECORD + ".tmp")
            draft.write_text(text)
            draft.replace(Path(self.box.folder, RECORD))
