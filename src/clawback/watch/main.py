"""The watch process: follow the telemetry, detect, contain at once, hand the incident to the responder.

The way from an event's write to the frozen agent runs through: inotify → `Tail` → `parse_line` → `Engine` → `Lanes` →
`Reflex`. Nothing on it imports, connects or waits; Prefect lives in the responder, a child process.
"""

from __future__ import annotations

import gc
import itertools
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from clawback.catalog import load as load_catalog
from clawback.config import Settings
from clawback.journal import Journal
from clawback.model import Event, Finding, Source
from clawback.model.ocsf import Rejected, parse_line
from clawback.pauses import keep_loaded
from clawback.urgency import go_first
from clawback.watch import positions
from clawback.watch.ahead import SECONDS
from clawback.watch.answer import Answer
from clawback.watch.engine import Engine
from clawback.watch.health import Health, Report
from clawback.watch.inotify import Inotify
from clawback.watch.lanes import Lanes
from clawback.watch.queue import Queue
from clawback.watch.reflex import Reflex
from clawback.watch.sequences import Sequences
from clawback.watch.tail import Position, Tail
from clawback.watch.warm import warm
from clawback.watch.withheld import Withheld
from clawback.world import World

__all__ = ["Handover", "Watch", "watch"]

THREADS = 4  # agents that are answered at the same time
HISTORY = 16 * 1024 * 1024  # bytes of each file read again at start, to know what the detectors knew
SKEW_NS = 60 * 1_000_000_000  # an event further ahead of our clock is counted; its writer's clock or ours is wrong
_SAVE_SECONDS = 0.5
_TICK_MS = 500
_BATCH = 2_000  # lines of one file before the others have their turn

_log = structlog.get_logger()


class Handover(Protocol):
    """Whoever runs playbooks."""

    def submit(self, incident: str) -> None:
        """Run, or go on with, this incident's playbook. Must not block; what is lost is in the journal."""
        ...

    def tend(self) -> None:
        """Called now and then: start it again if it died."""
        ...

    def stop(self) -> None:
        """End it in order."""
        ...


class Watch:
    """All of it but the signals. `run` returns after `stop`, which any thread or signal handler may call."""

    def __init__(
        self,
        settings: Settings,
        world: World,
        journal: Journal,
        handover: Handover,
        *,
        playbook_of: Callable[[str], str] | None = None,
        engine: Engine | None = None,
        per_minute: int = 0,
        ahead_seconds: float = SECONDS,
    ) -> None:
        self._settings = settings
        self._positions_file = settings.state / "watch" / "positions.json"
        self._handover = handover
        self._journal = journal
        self._world = world
        self.engine = engine or Engine(load_catalog().detectors.values())
        self.sequences = Sequences()
        self.reflex = Reflex(
            journal,
            world,
            playbook_of or _playbook_of,
            per_minute=per_minute,
            ahead_seconds=ahead_seconds,
            drill=settings.drill,
        )
        self.lanes = Lanes(
            self.reflex.answer,
            self._answered,
            together=self.reflex.answer_all,
            hurry=self.reflex.hurry,
            threads=THREADS,
        )
        self.withheld = Withheld(self.reflex.cap, journal, world.core, self.lanes.put, handover.submit)
        self.rejected: Counter[str] = Counter()
        self.skewed = 0
        self._last_event_ns = 0
        self._saved: Mapping[Source, Position] = {}
        self._save_due = 0.0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = threading.Event()
        self._tails: dict[Source, Tail] = {}
        self._reading: dict[Source, Iterator[bytes]] = {}

    def run(self) -> None:
        """Read, detect and answer until stopped."""
        settings = self._settings
        for folder in (settings.run, settings.telemetry):
            folder.mkdir(parents=True, exist_ok=True)
        (settings.run / "watch.sock").unlink(missing_ok=True)  # it says that we are ready, and we are not yet
        inotify = Inotify(settings.telemetry)
        health: Health | None = None
        try:
            self._open()
            self.withheld.start()
            for incident in self._resume():
                self._handover.submit(incident)
            self._handover.tend()
            warm(self._journal, self._world, connections=THREADS)
            keep_loaded()
            health = Health(settings.run / "watch.sock", self.report)
            _log.info("watching", folder=str(settings.telemetry), detectors=len(self.engine.detectors))
            self._loop(inotify)
        finally:
            self.withheld.stop()
            self.lanes.stop()
            self.reflex.stop()
            self._save()
            for tail in self._tails.values():
                tail.close()
            inotify.close()
            if health is not None:
                health.close()
            self._handover.stop()

    def stop(self) -> None:
        """End `run` soon."""
        self._stopping.set()
        os.eventfd_write(self._wake, 1)

    def report(self) -> Report:
        """For `/metrics`: totals since the start, unless the name says otherwise."""
        files: Counter[str] = Counter()
        for tail in self._tails.values():
            files.update(tail.counts)
        return {
            "events_total": self.engine.examined,
            "last_event_seconds": self._last_event_ns / 1e9,
            "rejected_total": {**self.rejected, "too-long": files["too-long"] + self.rejected["too-long"]},
            "files_total": {kind: number for kind, number in files.items() if kind != "too-long"},
            "findings_total": dict(self.engine.found),
            "suppressed_total": dict(self.engine.suppressed),
            "detector_errors_total": dict(self.engine.errors),
            "answers_total": dict(self.reflex.counts),
            "drill_answers_total": dict(self.reflex.drills),
            "retries_total": {kind: self.lanes.counts[kind] for kind in ("retried", "failed", "overflow")},
            "answered_together_total": self.lanes.counts["together"],
            "frozen_while_waiting_total": self.lanes.counts["ahead"],
            "events_lost_total": self.sequences.lost,
            "events_repeated_total": self.sequences.repeated,
            "events_dropped_by_writers_total": self.sequences.dropped,
            "events_ahead_of_clock_total": self.skewed,
            "contained_without_record_total": self.reflex.without_record,
            "deadlines_missed_total": self.reflex.missed,
            "frozen_ahead_of_record_total": self.reflex.ahead,
            "containments_withheld_total": self.reflex.cap.withheld,
            "containments_waiting": self.reflex.cap.waiting,
            "cap_per_minute": self.reflex.cap.per_minute,
            "cap_overridden": float(self.reflex.cap.override is not None),
            "last_frozen_milliseconds": self.reflex.last_frozen_ms,
        }

    def _open(self) -> None:
        self._saved = positions.load(self._positions_file)
        for source in Source:
            tail = Tail(self._settings.telemetry / f"{source}.jsonl", self._saved.get(source))
            self._tails[source] = tail
            for line in tail.history(HISTORY):
                try:
                    event = parse_line(line, source)
                except Rejected:
                    continue  # counted when it was read the first time
                self.sequences.note(event)
                self.engine.examine(event)  # its findings were answered before the position was saved

    def _resume(self) -> tuple[str, ...]:
        try:
            return self.reflex.resume()
        except Exception as error:
            # The telemetry is still there to be acted on; open incidents are the responder's to find as well.
            _log.error("open incidents not resumed", error=type(error).__name__)
            return ()

    def _loop(self, inotify: Inotify) -> None:
        poll = select.poll()
        poll.register(inotify.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        more = True
        while not self._stopping.is_set():
            poll.poll(0 if more else _TICK_MS)
            inotify.clear()  # before reading: a write in between is reported again
            more = self._read()
            now = time.monotonic()
            if now >= self._save_due:
                self._save_due = now + _SAVE_SECONDS
                self._handover.tend()
                if not more:
                    self._save()

    def _read(self) -> bool:
        """Take what is new from every file; True where a file has more than its turn allowed."""
        more = False
        for source, tail in self._tails.items():
            # A turn may end amid a chunk: the generator keeps the rest, so it is gone on with and not begun anew.
            lines = self._reading.pop(source, None) or tail.read()
            taken = 0
            for taken, line in enumerate(itertools.islice(lines, _BATCH), 1):  # noqa: B007 - the count is used below
                self._take(line, source)
            if taken == _BATCH:
                self._reading[source] = lines
                more = True
        return more

    def _take(self, line: bytes, source: Source) -> None:
        try:
            event = parse_line(line, source)
        except Rejected as error:
            self.rejected[error.reason] += 1
            if self.rejected[error.reason] == 1 or self.rejected[error.reason] % 1000 == 0:
                _log.warning("telemetry line rejected", stream=str(source), reason=error.reason, detail=error.message)
            return
        for finding in self.engine.examine(event):
            self.lanes.put(finding)
        self._account(event)

    def _account(self, event: Event) -> None:
        """What is worth knowing about an event, after what must be done about it."""
        lost = self.sequences.note(event)
        if lost:
            _log.warning("telemetry lost", stream=str(event.source), writer=event.writer, events=lost)
        self._last_event_ns = event.time_ns
        if event.time_ns > time.time_ns() + SKEW_NS:
            self.skewed += 1

    def _answered(self, finding: Finding, answer: Answer) -> None:
        if answer.outcome == "rehearsal":
            self.engine.forget(finding)  # made by the recovery: if the agent does it, that is news
            return
        if answer.incident and answer.outcome != "closed":
            self._handover.submit(answer.incident)
        _log.info(
            "finding answered",
            detector=finding.detector,
            agent=finding.agent,
            outcome=answer.outcome,
            incident=answer.incident,
            frozen_ms=round(answer.frozen_ms, 3),
        )

    def _save(self) -> None:
        """Only while nothing waits to be answered: a finding whose events lie behind the position would be lost."""
        if not self.lanes.idle:
            return
        current = dict(self._saved)
        current.update({source: at for source, tail in self._tails.items() if (at := tail.position()) is not None})
        if current == self._saved:
            return
        try:
            positions.save(self._positions_file, current)
        except OSError as error:
            _log.error("reading positions not saved", error=error.strerror)
            return
        self._saved = current


def _playbook_of(detector: str) -> str:
    book = load_catalog().answering(detector)
    return book.id if book is not None else ""


def watch(
    settings: Settings,
    world_factory: Callable[[], World],
    *,
    config_file: Path | None = None,
) -> None:
    """Run in this process until SIGTERM or SIGINT."""
    from clawback.services.responder import Responder

    sys.setswitchinterval(0.0005)  # a busy thread keeps the interpreter for 5 ms otherwise: as long as a whole reflex
    (settings.state).mkdir(parents=True, exist_ok=True)
    world, journal = world_factory(), Journal(settings.journal)
    responder = Responder(settings, config_file=config_file) if settings.responder.embedded else Queue(journal)
    _log.info("watch goes first", how=go_first())
    running = Watch(settings, world, journal, responder, per_minute=settings.watch.contained_per_minute)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.stop())
    gc.set_threshold(50_000, 20, 100)
    try:
        running.run()
    finally:
        journal.dispose()
