"""A child process on loopback that dies with its parent: started, waited for until it answers, stopped by pid.

    with Service("openbao", [program, "server"], log=state / "openbao.log", ready=answers, deadline=15) as bao:
        …

The child gets its own session (a terminal's Ctrl-C reaches only us, and we stop our children in order), the environment
that it is given plus `PATH` and locale and nothing else of ours, no standard input, and both outputs in its log file.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import structlog

from clawback.errors import Unreachable
from clawback.log import redact_text

__all__ = ["Service", "free_port"]

_log = structlog.get_logger()
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
_LOG_TAIL_BYTES = 2_000

# The kernel sends the death signal when the *thread* that forked ends, so every child is forked by one thread that
# lives as long as the process does.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="services")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on at this moment. Another process may take it before you do; then start again."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Service:
    """One supervised child.

    ready        called until it returns true; whatever it raises counts as "not yet"
    deadline     seconds from start to ready; beyond it the child is stopped and `Unreachable` carries the log's tail
    environment  all that the child sees beside PATH, locale and TMPDIR; values never reach argv or our log
    piped        give the child a pipe as standard input and as standard output (`stdin`, `stdout` here) instead of
                 nothing and the log
    user         the name of a user to run as, with that user's group and no others; ours where None
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        workdir: Path | None = None,
        ready: Callable[[], bool] | None = None,
        deadline: float = 30.0,
        piped: bool = False,
        pass_fds: Sequence[int] = (),
        user: str | None = None,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self._environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(
            environment or {}
        )
        self._workdir = workdir
        self._ready = ready
        self._deadline = deadline
        self._piped = piped
        self._pass_fds = tuple(pass_fds)
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The child's process id; 0 when it is not running."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """The child was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start, and return once it is ready. `Unreachable` when it ends or is silent past the deadline."""
        if self.running:
            return self
        began = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = _spawner.submit(self._spawn).result()
        self.stdin, self.stdout = self._process.stdin, self._process.stdout
        try:
            self._wait_ready(began + self._deadline)
        except BaseException:
            self.stop(grace=1.0)
            raise
        _log.debug("service ready", service=self.name, pid=self.pid, ms=round((time.monotonic() - began) * 1e3))
        return self

    def stop(self, grace: float = 5.0) -> None:
        """TERM, `grace` seconds, KILL, for what it left behind in its session too. Stopping twice is stopping once."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            try:
                process.stdin.close()
            except BrokenPipeError:  # unsent input of a child that is gone
                pass
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            _wait_exit(process.pid, grace)
            # Until it is reaped its pid, and so its group's id, cannot be anyone else's.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        if process.stdout is not None:
            process.stdout.close()  # only now: it would wait for a thread that reads from a living child

    def wait(self, seconds: float) -> bool:
        """Wait for the child to end by itself; true when it has, or was never started."""
        return self._process is None or self._process.poll() is not None or _wait_exit(self._process.pid, seconds)

    def kill(self) -> None:
        """KILL at once, without asking: what a crash looks like."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def tail(self) -> str:
        """The end of the log, redacted."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
                return redact_text(file.read().decode("utf-8", "backslashreplace")).strip()
        except FileNotFoundError:
            return ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self) -> subprocess.Popen[bytes]:
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._piped else log,
                stderr=log,
                env=self._environment,
                cwd=self._workdir,
                pass_fds=self._pass_fds,
                start_new_session=True,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                preexec_fn=die_with_parent,  # noqa: PLW1509 - two system calls, nothing that takes a lock
            )

    def _wait_ready(self, deadline: float) -> None:
        problem = ""
        while self.running:
            if self._ready is None:
                return
            try:
                if self._ready():
                    return
            except Exception as error:
                problem = type(error).__name__
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{self.name} did not answer within {self._deadline:g} s{problem and f' ({problem})'}",
                    hint=f"the end of {self.log}:\n{self.tail()}",
                )
            _wait_exit(self.pid, 0.02)
        status = self._process.returncode if self._process else None
        raise Unreachable(
            f"{self.name} ended with status {status} at start", hint=f"the end of {self.log}:\n{self.tail()}"
        )


def _wait_exit(pid: int, seconds: float) -> bool:
    """Wait until a child has ended, without reaping it."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        waiter = select.poll()  # select() cannot take descriptors above 1023
        waiter.register(handle, select.POLLIN)
        return bool(waiter.poll(max(0.0, seconds) * 1e3))
    finally:
        os.close(handle)
