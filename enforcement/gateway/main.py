"""Runs the gateway: binds its sockets while privileged, gives its folders away, drops, serves until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog
import uvicorn

from clawback.enforcement.gateway.api import application
from clawback.enforcement.gateway.attach import AttachServer
from clawback.enforcement.gateway.authority import prepare
from clawback.enforcement.gateway.peers import guarded
from clawback.enforcement.gateway.privileges import drop, load_late_modules
from clawback.enforcement.gateway.server import Gateway
from clawback.enforcement.kernel import namespaces
from clawback.enforcement.policy.ownership import give, give_tree
from clawback.errors import Refused
from clawback.model import InferenceEndpoint

__all__ = ["serve"]

_log = structlog.get_logger()


def serve(
    state: Path,
    *,
    uid: int | None,
    resolve: Mapping[str, str],
    allow_private: tuple[str, ...],
    peers: tuple[int, ...] = (),
    upstream_ca: Path | None = None,
    inference: Sequence[InferenceEndpoint] = (),
    queue_seconds: float = 120.0,
) -> None:
    """Serve until SIGTERM or SIGINT, as `uid` where it may become that. `peers` may use the API beside root and itself.

    `upstream_ca`: a PEM file of roots for destinations, beside the system's. `inference`: where models are reached, for
    orders about them; what such an order holds waits for `queue_seconds`.
    `Refused` where another gateway serves the same state folder.
    """
    state = state.absolute()
    upstream_ca = upstream_ca.absolute() if upstream_ca is not None else None
    started_by = os.geteuid()
    dropping = uid is not None and namespaces.gives_ids(uid)
    for name in ("run", "telemetry", "policies"):
        (state / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    # Everyone may connect; who is answered is decided by the peer's uid. The other socket is the core's alone.
    api = _bind(state / "run" / "gateway.sock", 0o666)
    (state / "orders").mkdir(mode=0o700, exist_ok=True)
    attach = _bind(state / "run" / "gateway-attach.sock", 0o600)
    prepare(state, uid=uid if dropping else None, extra=upstream_ca)
    if dropping and uid is not None:
        _give(state, uid)
        # Relative from here on: the folders above may be closed to the user that this process becomes.
        os.chdir(state)
        state = Path()
    become = uid if dropping else None
    own = frozenset((0, started_by, started_by if become is None else become))
    uids = (own | set(peers), own)
    try:
        asyncio.run(
            _run(
                api,
                attach,
                lambda: Gateway(
                    state,
                    resolve=resolve,
                    allow_private=allow_private,
                    upstream_ca=upstream_ca,
                    inference=inference,
                    queue_seconds=queue_seconds,
                ),
                uids=uids,
                become=become,
            )
        )
    finally:
        api.close()
        attach.close()


async def _run(
    api: socket.socket,
    attach: socket.socket,
    make: Callable[[], Gateway],
    *,
    uids: tuple[frozenset[int], frozenset[int]],
    become: int | None,
) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    gateway = make()  # in the loop
    config = uvicorn.Config(
        application(gateway), http=guarded(uids[0]), ws="none", lifespan="off", log_config=None, access_log=False
    )
    config.load()
    load_late_modules()
    drop(become)  # before there is a second thread: no_new_privs is each thread's own
    await gateway.start()
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[api]))
    attaching = asyncio.ensure_future(AttachServer(gateway, attach, uids=uids[1]).serve())
    stopping = asyncio.ensure_future(stopped.wait())
    _log.info("gateway serves", uid=os.getuid(), policies=gateway.policies.versions())
    try:
        await asyncio.wait((serving, attaching, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        attaching.cancel()
        stopping.cancel()
        results = await asyncio.gather(serving, attaching, stopping, return_exceptions=True)
        await gateway.stop()
    for result in results:
        if isinstance(result, Exception):
            raise result


class _Server(uvicorn.Server):
    """Signals are the gateway's, not the API server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(path: Path, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()  # left by a gateway that is gone
        else:
            sock.close()
            raise Refused(f"another gateway serves {path}", hint="stop it first, or use another state folder")
        sock.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o777 & ~mode)  # never wider than meant, not even for a moment
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    path.chmod(mode)
    sock.listen(128)
    sock.setblocking(False)
    return sock


def _give(state: Path, uid: int) -> None:
    """Let the gateway's user reach what it must write, and nothing else.

    The telemetry folder is the core's too. Sticky, it lets this user make files, and not remove or rename others'.
    """
    if not state.stat().st_mode & 0o001:
        os.chown(state, -1, uid)
        state.chmod(state.stat().st_mode | 0o010)
    give_tree(state / "policies", uid, uid)
    give_tree(state / "orders", uid, uid)
    os.chown(state / "telemetry", -1, uid)
    (state / "telemetry").chmod(0o1775)
    for name in ("policy.jsonl", "routing.jsonl"):
        path = state / "telemetry" / name
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))
        give(path, uid, uid)
