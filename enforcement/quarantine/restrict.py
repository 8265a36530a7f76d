"""Level 3: what release can take back. No file opens, nothing forks, secrets read empty, processor time is short."""

from __future__ import annotations

import errno
from dataclasses import asdict
from typing import Any

from clawback.enforcement.quarantine import cover, held, limits, openings, tree
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotEnforced
from clawback.model import Level, LevelResult

__all__ = ["apply", "probe", "release"]

_ENDED = "the sandbox has ended: no process is left"
_ENDING_SECONDS = 2.0


def apply(box: Sandbox, run: Run, *, readable: tuple[str, ...] | None = None) -> LevelResult:
    """Lower the limits, cover the secrets, refuse openings, look. Nothing of it ends with the core.

    `readable`: paths inside that may still be opened, with what is below them, where they lie on read-only mounts;
    None leaves an earlier order as it is, which at first is to refuse all.
    """
    clock = Clock(Level.RESTRICT)
    if tree.gone(box):
        return clock.full(_ENDED)
    missing = [f"limit {what}" for what in limits.lower(box)] if box.cgroup or box.controllers else []
    readable, lacking = openings.order(box, readable)
    missing += lacking
    try:
        done = run("clawback.enforcement.quarantine.restricting:run", {"box": asdict(box), "readable": readable})
    except ProcessLookupError:
        return clock.full(_ENDED) if tree.gone(box) else _judge(box, clock, run, missing)
    except (OSError, NotEnforced) as error:
        return _judge(box, clock, run, [*missing, f"secrets and file opens: {error}"])
    if any(one.get("errno") == errno.ESRCH for one in done.values()):
        return _judge(box, clock, run, missing)  # ended meanwhile, and the reading says so
    missing += _uncovered(done["cover"])
    if "holder" in done:
        missing += openings.refused(done["holder"])
    return _judge(box, clock, run, missing, done["inside"])


def probe(box: Sandbox, run: Run) -> LevelResult:
    """Read the limits, and try files and secrets from inside."""
    clock = Clock(Level.RESTRICT)
    return clock.full(_ENDED) if tree.gone(box) else _judge(box, clock, run, [])


def release(box: Sandbox, run: Run) -> LevelResult:
    """Let openings through, lift the covers, and put the limits back from what was written down before."""
    clock = Clock(Level.RESTRICT)
    left = limits.put_back(box)
    left += openings.permit(box)
    if tree.gone(box):
        return clock.none(_ENDED)
    left += _lift(box, run)
    try:
        left += [f"{path} is still covered" for path in sorted(cover.covered(box))]
    except ProcessLookupError:
        return clock.none(_ENDED)
    if left:
        return clock.partial("some restrictions still hold", *left)
    return clock.none("files open again, secrets are uncovered and limits as they were")


def _lift(box: Sandbox, run: Run) -> list[str]:
    try:
        answer = run("clawback.enforcement.quarantine.cover:run", {"box": asdict(box), "lift": True})
    except ProcessLookupError:
        return []  # ended meanwhile, and the reading after this says so
    except (OSError, NotEnforced) as error:
        return [f"secrets could not be uncovered: {error}"]
    return [f"{path}: {reason}" for path, reason in sorted(answer["failed"].items())]


def _uncovered(answer: dict[str, Any]) -> list[str]:
    if "error" in answer:
        return [f"secrets could not be covered: {answer['error']}"]
    return [f"{path}: {reason}" for path, reason in sorted(answer["failed"].items())]


def _judge(
    box: Sandbox, clock: Clock, run: Run, missing: list[str], tried: dict[str, Any] | None = None
) -> LevelResult:
    lowered, lacking = limits.lowered(box)
    missing += [what for what in lacking if f"limit {what}" not in missing]
    try:
        seen = openings.look(box, run, tried)
        covered = cover.covered(box)
        missing += [what for what in seen.missing if what not in missing]
        missing += [f"{path} can be read" for path in seen.readable]
        missing += [f"{path} is not covered" for path in seen.secrets if path not in covered]
        # So far it is what applying makes true, but for what this host lacks. What follows applying cannot change.
        drift = sum(what not in openings.NOT_HERE and not what.endswith(" controller") for what in missing)
        before = held.held(box)
        missing += held.named(before)
        missing += held.elsewhere(box)
    except (ProcessLookupError, FileNotFoundError):
        for _ in tree.until(_ENDING_SECONDS):  # its namespaces are gone a moment before it is
            if tree.gone(box):
                return clock.full(_ENDED)
        raise
    clock.count(
        drift=drift,
        secrets=len(seen.secrets),
        unreadable=len(seen.secrets) - len(seen.readable),
        covered=len(covered),
        marks=seen.marks,
        open=len(before),
        limits=len(lowered),
    )
    secrets = f"{len(seen.secrets) - len(seen.readable)} of {len(seen.secrets)} secrets read empty or are refused"
    opens = f"opens refused from inside at {seen.refused} of {seen.tried} mounts" if seen.marks else "files open"
    anything = bool(lowered) or bool(covered) or seen.marks > 0
    return clock.judged("; ".join([secrets, opens, *lowered]), tuple(missing), anything=anything)
