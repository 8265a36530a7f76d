"""Do everything once that the first reflex would otherwise do for the first time, and leave no trace of it.

The database library compiles each statement when it first meets it, tens of milliseconds in all, and opens connections
on demand. The rehearsal runs the very statements of a reflex in one transaction and rolls it back.
"""

from __future__ import annotations

from contextlib import ExitStack

import structlog

from clawback.errors import ClawbackError
from clawback.journal import Journal
from clawback.model import Enforcement, Finding, Level, Phase, Severity
from clawback.world import World

__all__ = ["warm"]

_log = structlog.get_logger()


class _RollBack(Exception):
    pass


def warm(journal: Journal, world: World, *, connections: int) -> None:
    """Open `connections` to the journal, run a reflex's statements on one and undo them, and speak to the core once.

    A part that is away is logged: answering a finding will try again.
    """
    try:
        with ExitStack() as opened:
            for _ in range(connections):
                opened.enter_context(journal.reading())
        _rehearse(journal)
    except Exception as error:
        _log.error("the journal could not be tried", error=type(error).__name__)
    try:
        world.core.agents()
    except ClawbackError as error:
        _log.warning("the core does not answer yet", error=error.message)


def _rehearse(journal: Journal) -> None:
    finding = Finding(
        detector="watch.start",
        agent="watch-start",
        instance="watch-start",
        severity=Severity.INFORMATIONAL,
        technique="none",
        resource="none",
        policy="",
        policy_version=0,
        title="start of watch",
        summary="start of watch",
        time_ns=0,
        events=("watch/start/0",),
        reflex=Level.ISOLATE,
    )
    try:
        with journal.together():
            incident, _ = journal.open_or_join(finding, playbook="")
            journal.open_or_join(finding, playbook="")
            receipt = journal.intend(incident, "k", "agent.freeze", Phase.CONTAIN, {}, "watch", captured={})
            journal.held(receipt.id, {}, "none", Enforcement.NONE)
            journal.note(incident, Phase.CONTAIN, "none")
            journal.incident(incident)
            raise _RollBack
    except _RollBack:
        pass
