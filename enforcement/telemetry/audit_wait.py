"""How long a task waits for room in the kernel's queue of audit records: bounded while a core runs, then as it was.

A task whose refusals fill the queue waits uninterruptibly, by default for a minute: the kernel's wake-up may come just
before it sleeps, and no other does until somebody else is refused something. Meanwhile it can be neither frozen nor
killed. The setting is the whole host's; where an audit daemon is registered, its configuration stands.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from clawback.enforcement.kernel import audit

__all__ = ["MOST", "AuditWait"]

MOST = 25
"""Jiffies: a tenth of a second at 250 a second, a fortieth at 1,000."""

_log = structlog.get_logger()


class AuditWait:
    """`file` keeps the value from before, from just before it is changed until it is put back: a core that was killed
    leaves both, and the next one puts it back at its own end.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def bound(self) -> str:
        """`on`, or why not. `OSError` where the kernel does not take it."""
        now = audit.status()
        if now.daemon:
            return "on" if now.wait <= MOST else "off: the audit daemon's backlog_wait_time stands"
        if now.wait > MOST:
            # Kept first: killed in between, it would never be put back.
            self._file.write_text(f"{now.wait}\n")
            audit.set_wait(MOST)
        return "on"

    def put_back(self) -> None:
        """As it was before, unless somebody else has changed it since; nothing without a kept value."""
        try:
            before = int(self._file.read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _log.warning("audit's backlog_wait_time not put back", file=str(self._file), error=str(error))
            return
        try:
            if audit.status().wait == MOST:
                audit.set_wait(before)
        except OSError as error:
            _log.warning("audit's backlog_wait_time not put back", value=before, error=error.strerror)
            return
        self._file.unlink(missing_ok=True)
