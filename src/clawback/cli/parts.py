"""`up`, `core`, `gateway`, `watch`, `worker`: the processes of a host, together or one by one."""

from __future__ import annotations

import os
import signal
import sys
import threading

from clawback.cli.app import app, config_file, settings
from clawback.cli.output import console, safe

__all__: list[str] = []


@app.command()
def core() -> None:
    """Run the enforcement core: sandboxes and quarantine. As root, or rootless with less."""
    from clawback.enforcement.core.main import serve
    from clawback.enforcement.core.rules import ReleaseRules

    chosen = settings()
    serve(
        chosen.state,
        cgroup=chosen.core.cgroup,
        uid_base=chosen.core.uid_base,
        allow=dict(chosen.core.allow),
        canaries=chosen.core.canaries,
        landlock_audit=chosen.core.landlock_audit,
        trace=chosen.core.trace,
        bound_audit_wait=chosen.core.bound_audit_wait,
        heartbeat_seconds=chosen.core.heartbeat_seconds,
        verify_seconds=chosen.core.verify_seconds,
        escalation_seconds=chosen.core.escalation_seconds,
        release=ReleaseRules(
            separation=chosen.core.release.separation, approvers=frozenset(chosen.core.release.approvers)
        ),
    )


@app.command()
def gateway() -> None:
    """Run the egress gateway: the agents' only way out."""
    from clawback.enforcement.gateway.main import serve
    from clawback.model import InferenceEndpoint

    chosen = settings()
    serve(
        chosen.state,
        uid=chosen.gateway.uid,
        resolve=dict(chosen.gateway.resolve),
        allow_private=chosen.gateway.allow_private,
        upstream_ca=chosen.gateway.upstream_ca,
        inference=tuple(
            InferenceEndpoint(host=one.name, port=one.port, kind=one.kind, path=one.path)
            for one in chosen.gateway.inference
        ),
        queue_seconds=chosen.gateway.queue_seconds,
        peers=(),
    )


@app.command()
def watch() -> None:
    """Run the detectors over the telemetry; contain, open incidents, start playbooks."""
    from clawback.connectors.assemble import assemble
    from clawback.watch.main import watch as run

    chosen = settings()
    run(chosen, lambda: assemble(chosen), config_file=config_file())


@app.command()
def worker() -> None:
    """Run playbooks of incidents from the journal, one of any number of workers on any number of hosts."""
    chosen, file = settings(), config_file()
    options = ["--state", str(chosen.state), *(["--config", str(file)] if file is not None else [])]
    # In this process's place: Prefect's threads end by its own way out (see `clawback.orchestrate.__main__`).
    os.execv(sys.executable, [sys.executable, "-m", "clawback.orchestrate", "--work", *options])  # noqa: S606 - no shell is wanted


@app.command()
def up() -> None:
    """Run all of them on this machine, with an embedded Prefect server, until interrupted."""
    from clawback.services.stack import Stack

    chosen = settings()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with Stack(chosen, config_file=config_file()) as stack:
        for line in stack.describe():
            console.print(safe(line, 400))
        while not over.wait(0.2):
            stack.tend()
