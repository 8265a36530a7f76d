"""`clawback core`: one process per host, up when its socket is there, and gone without an agent noticing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
import uvicorn

from clawback.enforcement.core import descriptors
from clawback.enforcement.core.claims import claimed
from clawback.enforcement.core.parts import CoreParameters
from clawback.enforcement.core.peers import Permissions, protocol
from clawback.enforcement.core.routes import Routes
from clawback.enforcement.core.rules import ReleaseRules
from clawback.enforcement.core.server import Api
from clawback.enforcement.core.service import Service
from clawback.enforcement.core.stdio import StdioDesk
from clawback.errors import InvalidInput, Refused
from clawback.pauses import keep_loaded
from clawback.urgency import go_first

__all__ = ["serve"]

_SWITCH_SECONDS = 0.0001
"""How long a busy thread may keep the interpreter from the one that freezes; Python's own 5 ms are too long."""

_PATH_BYTES = 107
"""sun_path of unix(7), less its zero byte."""

_KEEP_ALIVE_SECONDS = 600
_NICE = -15

_log = structlog.get_logger()


def serve(
    state: Path,
    *,
    cgroup: str = "clawback",
    uid_base: int = 1_900_000,
    allow: Mapping[int, tuple[str, ...]] | None = None,
    canaries: tuple[str, ...] = (),
    landlock_audit: bool = False,
    trace: str = "denials",
    bound_audit_wait: bool = True,
    heartbeat_seconds: float = 5.0,
    verify_seconds: float = 5.0,
    escalation_seconds: float = 60.0,
    order_seconds: float = 30.0,
    release: ReleaseRules | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `STATE/run/core.sock` appears when everything is ready, and not before.

    `Refused` where another core already serves this state, or has some of these user ids or this group.
    `InvalidInput` for a verb in `allow` that does not exist.
    """
    permissions = Permissions(allow or {})
    run = state / "run"
    if len(os.fsencode(run / "gateway-attach.sock")) > _PATH_BYTES:
        raise InvalidInput(f"state: the path {state} is too long for Unix sockets", hint="choose a shorter one")
    run.mkdir(parents=True, exist_ok=True)
    with _only_one(run / "core.lock"), claimed(uid_base, cgroup):
        (run / "core.sock").unlink(missing_ok=True)  # a dead core's: nobody may take it for readiness
        sys.setswitchinterval(_SWITCH_SECONDS)
        descriptors.take_most()
        service = Service(
            CoreParameters(
                state=state,
                cgroup=cgroup,
                uid_base=uid_base,
                canaries=canaries,
                landlock_audit=landlock_audit,
                trace=trace,
                bound_audit_wait=bound_audit_wait,
                heartbeat_seconds=heartbeat_seconds,
                verify_seconds=verify_seconds,
                escalation_seconds=escalation_seconds,
                order_seconds=order_seconds,
                release=release or ReleaseRules(),
            )
        )
        _hasten()
        try:
            service.start()
            asyncio.run(_serve(service, permissions, run))
        finally:
            (run / "core.sock").unlink(missing_ok=True)
            service.close()


class _Server(uvicorn.Server):
    """uvicorn, with its signal handling left to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None of them."""
        yield


async def _serve(service: Service, permissions: Permissions, run: Path) -> None:
    _log.info("the core goes first", how=go_first())
    loop = asyncio.get_running_loop()
    desk = StdioDesk(run / "core-fds.sock", permissions)
    desk.attach(loop)
    api = Api(Routes(service, desk, permissions), permissions)
    server = _Server(
        uvicorn.Config(
            api,
            http=protocol(permissions),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
        )
    )

    def stop() -> None:
        server.should_exit = True
        service.ends.leave()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    listener = _listen(run)
    keep_loaded()
    _log.info("core up", socket=str(run / "core.sock"), pid=os.getpid())
    try:
        await server.serve(sockets=[listener])
    finally:
        desk.close(loop)
        api.close()


def _listen(run: Path) -> socket.socket:
    """Listening before it has its name: whoever sees the socket can connect to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = run / ".core.sock.new"
    new.unlink(missing_ok=True)
    listener.bind(str(new))
    new.chmod(0o666)  # anybody may connect; the peer's credentials decide what it may ask
    listener.listen(512)
    new.rename(run / "core.sock")
    return listener


def _hasten() -> None:
    """Put this thread, and those it starts, before whatever a rogue agent keeps the processors busy with.

    After the spawner was started: agents must not inherit it.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    except PermissionError:
        _log.info("core runs at the usual priority", reason="not root")


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another core serves {path.parent.parent}", hint="stop it, or set another state") from None
        yield
    finally:
        os.close(descriptor)  # and with it the lock
