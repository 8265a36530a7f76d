"""Seal an agent's running processes with narrower filters, forced on every thread: nothing takes that back.

Only a relaunch ends it. Release lifts the order and says that the filters are still there.
"""

from __future__ import annotations

from clawback.actions._ladder import ladder_action
from clawback.model import Level

__all__ = ["ACTION"]

ACTION = ladder_action(
    Level.SEAL,
    summary="Force a narrower system call filter and file access ruleset on the running processes.",
    scope="every thread of one agent's processes, for as long as they live",
    openc2="restrict",
    d3fend="D3-SCF",
    reversible=False,
)
