"""The ladder as one: apply, probe or release any level of a sandbox."""

from __future__ import annotations

from clawback.enforcement.quarantine import freeze, responders, restrict, seal, stop
from clawback.enforcement.quarantine.helper import Run, run_alone
from clawback.enforcement.quarantine.joined import isolation
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Level, LevelResult

__all__ = ["apply", "probe", "release"]


def apply(
    box: Sandbox,
    level: Level,
    *,
    run: Run = run_alone,
    allow: tuple[str, ...] | None = None,
    readable: tuple[str, ...] | None = None,
) -> LevelResult:
    """Make a level true and say what was then seen. Doing it again mends what no longer holds.

    `run` makes the single-threaded child that restrict and seal need, and without root freeze and isolate; a spawner's
    is warm, the default starts cold. `allow`: responders (`ADDRESS:PORT`) that an isolated agent may still reach; its
    gateway must have let go of it before. `readable`: paths that a restricted one may still open for reading. None
    leaves both as they were ordered before; at first nothing is allowed.
    """
    match level:
        case Level.FREEZE:
            return freeze.apply(box, run)
        case Level.ISOLATE:
            return _isolate(box, run, allow)
        case Level.RESTRICT:
            return restrict.apply(box, run, readable=readable)
        case Level.SEAL:
            return seal.apply(box, run)
        case Level.STOP:
            return stop.apply(box)


def probe(box: Sandbox, level: Level, *, run: Run = run_alone) -> LevelResult:
    """Read a level's postcondition from the kernel and from inside; changes nothing."""
    match level:
        case Level.FREEZE:
            return freeze.probe(box)
        case Level.ISOLATE:
            return responders.probe(box) if responders.ordered(box) else isolation("probe", box, run)
        case Level.RESTRICT:
            return restrict.probe(box, run)
        case Level.SEAL:
            return seal.probe(box)
        case Level.STOP:
            return stop.probe(box)


def release(box: Sandbox, level: Level, *, run: Run = run_alone) -> LevelResult:
    """Undo a level. The result's enforcement is how much of it still holds: none is a complete release."""
    match level:
        case Level.FREEZE:
            return freeze.release(box)
        case Level.ISOLATE:
            responders.end(box)
            return isolation("release", box, run)
        case Level.RESTRICT:
            return restrict.release(box, run)
        case Level.SEAL:
            return seal.release(box)
        case Level.STOP:
            return stop.release(box)


def _isolate(box: Sandbox, run: Run, allow: tuple[str, ...] | None) -> LevelResult:
    """Cut everything first, whatever may be let through afterwards."""
    wanted = responders.ordered(box) if allow is None else responders.checked(allow)
    if not wanted:
        responders.end(box)
    result = isolation("apply", box, run)
    return responders.let(box, wanted, run, result) if wanted else result
