"""Decoy files in the sandboxes: nobody has business with them, so that trying to open one is refused and reported.

Without the core nobody answers, and the kernel lets the opener through: a decoy must never hold anything.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import structlog

from clawback.enforcement.kernel.canary_watch import CanaryWatch, Opened
from clawback.enforcement.kernel.paths import opened
from clawback.enforcement.telemetry.roster import Tracked, uid_of
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Disposition, FileActivity, Severity

__all__ = ["ACCESS", "Canaries"]

ACCESS = "canary"
"""The `access` of such an event."""

_log = structlog.get_logger()


class Canaries:
    """`place` may be called from any thread, `take` from the one reader."""

    def __init__(self, writer: TelemetryWriter, watch: CanaryWatch) -> None:
        self._writer = writer
        self._watch = watch
        self._lock = threading.Lock()
        self._marked: dict[tuple[int, int], dict[int, tuple[str, Tracked]]] = {}  # inode → uid → path, instance

    def place(self, tracked: Tracked, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Watch these paths inside the instance's sandbox; returns those that could not be watched."""
        with self._lock:
            for uids in self._marked.values():
                uids.pop(tracked.uid, None)
            self._marked = {inode: uids for inode, uids in self._marked.items() if uids}
        missed = []
        for path in paths:
            try:
                descriptor = opened(path, root=f"/proc/{tracked.pid}/root")
            except OSError:
                missed.append(path)
                continue
            try:
                inode = self._watch.mark(descriptor)
            except OSError as error:
                _log.warning("canary not watched", agent=tracked.agent, path=path, error=error.strerror)
                missed.append(path)
                continue
            finally:
                os.close(descriptor)
            with self._lock:
                self._marked.setdefault(inode, {})[tracked.uid] = (path, tracked)
        return tuple(missed)

    def take(self, opened: Opened) -> None:
        """Report one attempt, then refuse it; let it pass if it is somebody's outside the sandboxes (root's evidence).

        The opener waits meanwhile. What cannot be decided is refused.
        """
        denied = True
        try:
            denied = self._report(opened)
        finally:
            self._watch.answer(opened, denied=denied)

    def _report(self, opened: Opened) -> bool:
        with self._lock:
            uids = dict(self._marked.get(opened.inode, {}))
        uid = uid_of(opened.pid)
        if uid not in uids:
            return False
        path, tracked = uids[uid]
        self._writer.emit(
            FileActivity,
            bucket=ACCESS,  # a flood of other refused files must not hide the one report that needs no second
            activity_id=FileActivity.OPEN,
            severity=Severity.HIGH,
            disposition=Disposition.BLOCKED,
            path=path,
            access=ACCESS,
            pid=opened.pid,
            exe=_exe(opened.pid),
            message="canary file refused",
            **tracked.fields,
        )
        return True


def _exe(pid: int) -> str:
    try:
        return os.fsencode(Path(f"/proc/{pid}/exe").readlink()).decode("utf-8", "backslashreplace")
    except OSError:
        return ""
