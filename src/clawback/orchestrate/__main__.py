"""`python -m clawback.orchestrate [--state DIR] [--config FILE] [--resume | --work]`: the warm responder that takes
incidents by its standard input, or one resumption, or a worker that takes them from the journal alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from clawback import catalog, config, log
from clawback.errors import ClawbackError
from clawback.journal import Journal
from clawback.orchestrate.declared import declare
from clawback.orchestrate.engine import Engine
from clawback.orchestrate.process import resume, serve, work
from clawback.world import World


def _world(settings: config.Settings) -> World:
    # By name: assembling pulls in the clients of Vault and AWS, and only a response needs them.
    assemble: Any = importlib.import_module("clawback.connectors.assemble").assemble
    world: World = assemble(settings)
    return world


def main() -> int:
    """Parse, assemble, run."""
    parser = argparse.ArgumentParser(prog="python -m clawback.orchestrate")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on with the open incidents, then end")
    parser.add_argument("--work", action="store_true", help="take incidents from the journal until told to stop")
    arguments = parser.parse_args()
    log.configure()
    try:
        settings = config.load(arguments.config, **({"state": arguments.state} if arguments.state else {}))
        units = catalog.load()
        engine = Engine(
            Journal(settings.journal),
            lambda: _world(settings),
            units.playbooks,
            actions=units.actions,
            approvals=settings.approvals,
        )
        if not arguments.resume:
            engine.prepare()
        if arguments.resume:
            asyncio.run(resume(settings, engine))
        else:
            declared = declare(units.playbooks, units.runbooks, settings.prefect.drills)
            asyncio.run((work if arguments.work else serve)(settings, engine, declared))
    except ClawbackError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_status
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: Prefect's threads would wait half a minute for a server that is gone. What they had was sent.
    os._exit(status)
