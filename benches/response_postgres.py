"""The same as `response`, with the journal on a PostgreSQL of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benches.incidents import measured
from benches.peers import Unable
from clawback.services.postgres import Postgres, find

__all__ = ["RUNS", "SECONDS", "measure"]

RUNS = (100, 3)  # of fewer there is no p99
SECONDS = 900.0


def measure(n: int) -> dict[str, Any]:
    """`postgres_event_to_…`, in ms, over `n` runs."""
    if find() is None:
        raise Unable("needs PostgreSQL (Debian: postgresql)")
    with tempfile.TemporaryDirectory(prefix="cb-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with Postgres(Path(folder) / "pg") as server:
            return measured(n, journal_url=server.create("clawback"), prefix="postgres_")
