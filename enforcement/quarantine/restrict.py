"""Level 3: what release can take back. No file opens, nothing forks, secrets read empty, processor time is short."""

from __future__ import annotations

from dataclasses import asdict

from clawback.enforcement.quarantine import cover, held, limits, openings, tree
from clawback.enforcement.quarantine.helper import Run
from clawback.enforcement.quarantine.result import Clock
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import NotEnforced
from clawback.model import Level, LevelResult

__all__ = ["apply", "probe", "release"]

_ENDED = "the sandbox has ended: no process is left"


def apply(box: Sandbox, run: Run, *, readable: tuple[str, ...] | None = None) -> LevelResult:
    """Lower the limits, cover the secrets, refuse openings, look. Nothing of it ends with the core.

    `readable`: paths inside that may still be opened, with what is below them, where they lie on read-only mounts;
    None leaves an earlier order as it is, which at first is to refuse all.
    """
    clock = Clock(Level.RESTRICT)
    if tree.gone(box):
        return clock.full(_ENDED)
    missing = [f"limit {what}" for what in limits.lower(box)] if box.cgroup or box.controllers else []
    missing += _cover(box, run, lift=False)
    missing += openings.refuse(box, run, readable)  # after the covers, so that they are not asked about
    return _judge(box, clock, run, missing)


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
    left += _cover(box, run, lift=True)
    try:
        left += [f"{path} is still covered" for path in sorted(cover.covered(box))]
    except ProcessLookupError:
        return clock.none(_ENDED)
    if left:
        return clock.partial("some restrictions still hold", *left)
    return clock.none("files open again, secrets are uncovered and limits as they were")


def _cover(box: Sandbox, run: Run, *, lift: bool) -> list[str]:
    try:
        answer = run("clawback.enforcement.quarantine.cover:run", {"box": asdict(box), "lift": lift})
    except ProcessLookupError:
        return []  # ended meanwhile, and the reading after this says so
    except (OSError, NotEnforced) as error:
        return [f"secrets could not be {'un' * lift}covered: {error}"]
    return [f"{path}: {reason}" for path, reason in sorted(answer["failed"].items())]


def _judge(box: Sandbox, clock: Clock, run: Run, missing: list[str]) -> LevelResult:
    lowered, lacking = limits.lowered(box)
    missing += [what for what in lacking if f"limit {what}" not in missing]
    try:
        seen = openings.look(box, run)
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
