"""Switch the tracing of refused calls on while there is reason to, and off again, because every call of the host pays.

A thread of its own: attaching waits for the kernel (0.3 ms, on a busy host 20), and no event shall wait with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from clawback.enforcement.kernel.call_trace import CallTrace

__all__ = ["Tracer"]

_SECONDS = 10.0
_log = structlog.get_logger()


class Tracer:
    """`last` says when an agent's call was last denied, on the monotonic clock; `failed` is told why none is traced."""

    def __init__(
        self, trace: CallTrace, *, always: bool, last: Callable[[], float], failed: Callable[[str], None]
    ) -> None:
        self._trace = trace
        self._always = always
        self._last = last
        self._failed = failed
        self._news = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def nudge(self) -> None:
        """Something was denied just now."""
        if not self._trace.attached:
            self._news.set()

    def close(self) -> None:
        """Stop tracing; what was recorded may still be read."""
        self._closing = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._closing:
            quiet = time.monotonic() - self._last()
            try:
                if self._always or quiet < _SECONDS:
                    self._trace.attach()
                else:
                    self._trace.detach()
            except OSError as error:
                self._failed(f"off: {error.strerror}")
                _log.error("calls are not traced", error=error.strerror)
            self._news.wait(1.0 if self._trace.attached else None)
            self._news.clear()
        self._trace.detach()
