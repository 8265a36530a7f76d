"""For actions that change nothing: undoing them is nothing, and says so."""

from __future__ import annotations

from clawback.action import Context, Params, Record, Verification
from clawback.model import Enforcement

__all__ = ["nothing_reverted", "revert_nothing"]


def revert_nothing(_ctx: Context, _params: Params, _captured: Record) -> None:
    """There is nothing to undo."""


def nothing_reverted(_ctx: Context, _params: Params, _captured: Record) -> Verification:
    """Undone by having changed nothing."""
    return Verification(verified=True, enforcement=Enforcement.FULL, proof="it changed nothing: nothing to undo")
