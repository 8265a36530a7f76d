"""What the cap held back: taken up when there is room for it, or left to the person who took it over."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from clawback.journal import Journal
from clawback.model import Finding, Incident, Phase
from clawback.watch.cap import AUTOMATION, Cap
from clawback.world import Core

__all__ = ["TAKEN_OVER", "WITHHELD", "Withheld", "is_taken_over", "is_withheld", "waits"]

WITHHELD = "reflex withheld"  # `incident.triage` reads it: the playbook must not do what the reflex may not
TAKEN_OVER = "contained by a person"
_SECONDS = 0.5

_log = structlog.get_logger()


def is_withheld(incident: Incident) -> bool:
    """The cap held its reflex back, whatever came of it since."""
    return any(line.what == WITHHELD for line in incident.timeline)


def is_taken_over(incident: Incident) -> bool:
    """It waited until a person contained the agent: what that person did since stands."""
    return any(line.what == TAKEN_OVER for line in incident.timeline)


def waits(incident: Incident) -> bool:
    """It is held back, and nobody and nothing has contained the agent since."""
    frozen = any(receipt.action == "agent.freeze" for receipt in incident.receipts)
    return is_withheld(incident) and not frozen and not is_taken_over(incident)


class Withheld:
    """One thread, beside the reading of telemetry: it asks the journal and the core, either of which may take its time.

    answer  a finding that there is room for now
    go_on   an incident whose agent a person contained: its playbook is permitted by that
    """

    def __init__(
        self,
        cap: Cap,
        journal: Journal,
        core: Core,
        answer: Callable[[Finding], object],
        go_on: Callable[[str], object],
    ) -> None:
        self._cap = cap
        self._journal = journal
        self._core = core
        self._answer = answer
        self._go_on = go_on
        self._quiet = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="withheld", daemon=True)

    def start(self) -> None:
        """Look once, here, and from now on in the background."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """No longer look."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look once."""
        try:
            self._cap.look(self._journal)
            self._take_over()
            for one in self._cap.due():
                self._answer(one.finding)
            self._quiet = False
        except Exception as error:
            if not self._quiet:
                _log.warning("what the cap holds back could not be looked at", error=type(error).__name__)
            self._quiet = True

    def _take_over(self) -> None:
        waiting = self._cap.all_waiting()
        held = {info.agent: info for info in self._core.agents() if info.hold} if waiting else {}
        for one in waiting:
            info = held.get(one.finding.agent)
            if info is None or info.hold is None or info.instance != one.finding.instance:
                continue
            if info.hold.by not in AUTOMATION:
                self._journal.note(one.incident, Phase.CONTAIN, TAKEN_OVER, f"{info.hold.by}: {info.hold.reason}")
            self._cap.drop(one.incident)
            self._go_on(one.incident)

    def _run(self) -> None:
        while not self._stopping.wait(_SECONDS):
            self.look()
