"""Runs one of an action's functions, and tells a part that is away from a step that failed and from a defect."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from clawback.errors import ClawbackError, NotFound, Unreachable
from clawback.log import redact_text

__all__ = ["Outcome", "guarded"]

_log = structlog.get_logger()
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """What came of a call: `value`, or `error` for people. `away`: a part did not answer. `gone`: no such target."""

    value: T | None = None
    error: str = ""
    away: bool = False
    gone: bool = False

    @property
    def ok(self) -> bool:
        """The call returned."""
        return not self.error


def guarded(what: str, call: Callable[[], T]) -> Outcome[T]:
    """Call, and turn whatever is raised into an `Outcome`. Interrupts and an orchestrator's aborts pass through."""
    try:
        return Outcome(value=call())
    except Unreachable as error:
        return Outcome(error=_text(error), away=True)
    except ClawbackError as error:
        return Outcome(error=_text(error), gone=isinstance(error, NotFound))
    except Exception as error:
        # Its message may quote anything, a credential too: the journal gets the type, the log where it was raised.
        frames = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        _log.error("an action raised what it should not", step=what, error=type(error).__name__, frames=frames[-8:])
        return Outcome(error=f"defect: {type(error).__name__} in {what}; the log has the place")


def _text(error: ClawbackError) -> str:
    return redact_text(f"{error.message} ({error.hint})" if error.hint else error.message) or type(error).__name__
