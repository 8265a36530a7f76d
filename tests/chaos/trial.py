"""One trial: lives of a response that are killed or suffer, then lives in peace; and whether all is as it must be."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from chaos.disk import Disk
from chaos.invariants import Baseline, baseline, broken
from chaos.outside import PARTS, TICK, Fault, Outside
from chaos.plan import Life, Plan
from sqlalchemy import Connection, text

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.catalog import Catalog
from clawback.errors import ClawbackError
from clawback.journal import Journal
from clawback.model import Finding, Incident, IncidentStatus, Level, Phase, ReceiptState, Severity
from clawback.playbook import Playbook
from clawback.response import Response, undo
from clawback.world import World

__all__ = ["Outcome", "Place", "finding_for", "run", "undisturbed"]

# What a killed process wrote stays whether or not it is on a disk, and a thousand trials wait for no flush.
_ROOM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_PEACEFUL = 6  # lives in peace, after which everything must have settled
_AT_NS = 1_795_000_000_000_000_000


@dataclass
class Outcome:
    """What came of it: `problems` is empty where every invariant held."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    kills: int = 0
    lies: int = 0
    lives: int = 0


class Place(Protocol):
    """Where trials happen: the world and the journal of each. A life that takes longer than its `patience` hangs."""

    patience: float

    def begin(self, folder: Path, seed: int) -> Any:
        """A world for one trial: as `MemoryWorld`, with `agent`; `own`, the parts that a life has to itself; `url` of
        the journal, and `record`, its URL past whatever is wrong with it.
        """
        ...

    def wrong(self, there: Any, faults: tuple[Fault, ...]) -> None:
        """These faults, and no others, from now on."""
        ...

    def end(self, there: Any) -> None:
        """What was made for this trial is gone."""
        ...

    def respond(self, there: Any, journal: Journal, world: World, playbook: Playbook, incident: str) -> None:
        """Go on with the incident, in the life's own process."""
        ...


def finding_for(detector: str, agent: str = "a") -> Finding:
    """An alert that this detector could have raised about the agent of the world in memory."""
    return Finding(
        detector=detector,
        agent=agent,
        instance="i1",
        severity=Severity.CRITICAL,
        technique="T1552.001",
        resource="/root/.aws/credentials",
        policy="support",
        policy_version=2,
        title="Chaos",
        summary="a trial",
        time_ns=_AT_NS,
        events=("sandbox/w/1",),
        reflex=Level.ISOLATE,
        attempts=(("open", "/root/.aws/credentials"), ("connect", "files.partner.test:443")),
    )


class _Borders:
    """Counts what a life crosses; at the one that is meant, the process is no more."""

    def __init__(self, life: Life, disk: Disk | None) -> None:
        self.count, self._life, self._lock, self._disk = 0, life, threading.Lock(), disk
        self.offset = life.clock

    def __call__(self, _where: str) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._life.step_at:
                self.offset += self._life.step
            if self._disk is not None and self._life.pages and self.count == self._life.full_at:
                self._disk.fill(self._life.pages)
            if self._disk is not None and self.count == self._life.free_at:
                self._disk.free()
            if self.count == self._life.die:
                os.kill(os.getpid(), signal.SIGKILL)


class _Journal(Journal):
    """Every write crosses two borders: before it begins, and when it is durable."""

    def __init__(self, url: str, borders: _Borders, pages: int) -> None:
        self._borders = borders
        super().__init__(url)
        if pages:
            self._fill(pages)

    def _fill(self, pages: int) -> None:
        """Where no disk can be mounted, SQLite's own limit: what comes is its own `database or disk is full`."""
        from sqlalchemy import event

        with self._engine.connect() as connection:
            most = connection.execute(text("PRAGMA page_count")).scalar_one() + pages
        self._engine.dispose()
        event.listen(self._engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {most}"))

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        self._borders("before a write")
        with super().writing() as connection:
            yield connection
        self._borders("after a write")


def _clocked(borders: _Borders) -> None:
    """This process's clock, and nobody else's, is off."""
    true = time.time_ns
    time.time_ns = lambda: true() + round(borders.offset * 1e9)  # type: ignore[assignment]  # in a child that ends soon


class Trial:
    """A world, a journal, and the lives of one plan."""

    def __init__(
        self, plan: Plan, folder: Path, place: Place, catalog: Catalog, like: Baseline | None, *, disks: bool
    ) -> None:
        self.plan, self.folder, self.place, self.catalog, self.like = plan, folder, place, catalog, like
        (folder / "disk").mkdir()
        self.disk = Disk(folder / "disk") if disks and any(life.pages for life in plan.lives) else None
        self.there = place.begin(folder / "disk", plan.seed)
        self.outside = Outside(self.there)
        self.playbook = catalog.playbooks[plan.playbook]
        self.finding = finding_for(plan.detector, self.there.agent)

    def close(self) -> None:
        self.place.end(self.there)
        if self.disk is not None:
            self.disk.close()

    def live(self, life: Life) -> int:
        self.outside.faults = tuple(fault for fault in life.faults if fault.part in PARTS)
        self.place.wrong(self.there, life.faults)
        try:
            return self.outside.live(
                lambda world: self._live(life, world), patience=self.place.patience, kill_after=life.after
            )
        finally:
            self.place.wrong(self.there, ())
            if self.disk is not None:
                self.disk.free()

    def _live(self, life: Life, world: World) -> None:
        borders = _Borders(life, self.disk)
        TICK[0] = borders
        _clocked(borders)
        descriptor = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        try:
            journal = _Journal(self.there.url, borders, life.pages if self.disk is None else 0)
            self._respond(life, world, journal)
        except ClawbackError as error:  # what a full disk or an absent part may bring it to: the next life goes on
            os.write(2, f"{life.role}: {error.message}\n".encode())
        (self.folder / "borders").write_text(str(borders.count))

    def _respond(self, life: Life, world: World, journal: Journal) -> None:
        incident, _ = journal.open_or_join(self.finding, playbook=self.playbook.id)
        if life.role == "flow":
            if incident.status is IncidentStatus.OPEN:
                self.place.respond(self.there, journal, world, self.playbook, incident.id)
            return
        response = Response(journal, world, "responder", incident.id, actions=self.catalog.actions)
        with journal.lock(incident.agent):
            if life.role == "reflex":
                for action in (FREEZE, ISOLATE):
                    params = action.params(agent=incident.agent, instance="i1", reason="reflex")
                    response.execute(action, params, phase=Phase.CONTAIN)
            else:
                for _ in undo(response, "a false alarm"):
                    pass

    def incidents(self) -> tuple[Incident, ...]:
        journal = Journal(self.there.record)
        try:
            return journal.incidents()
        finally:
            journal.dispose()

    def problems(self, *, at_rest: bool) -> list[str]:
        journal = Journal(self.there.record)
        try:
            return broken(
                journal,
                self.there,
                undone=self.undone,
                lied=self.lied > 0,
                at_rest=at_rest,
                like=self.like,
            )
        finally:
            journal.dispose()

    @property
    def lied(self) -> int:
        return self.outside.lied + getattr(self.there, "lied", 0)

    @property
    def undone(self) -> bool:
        return any(life.role == "undo" for life in self.plan.lives)


def run(plan: Plan, place: Place, catalog: Catalog, like: Baseline, *, disks: bool) -> Outcome:
    """The trial of this plan, in a folder of its own that is gone afterwards."""
    folder, outcome = Path(tempfile.mkdtemp(prefix="cb-chaos-", dir=_ROOM)), Outcome(plan)
    trial = Trial(plan, folder, place, catalog, like, disks=disks)
    try:
        for number, life in enumerate(plan.lives, start=1):
            outcome.kills += trial.live(life) == -signal.SIGKILL
            outcome.lives += 1
            outcome.problems += [f"after life {number}: {problem}" for problem in trial.problems(at_rest=False)]
        outcome.problems += _in_peace(trial, outcome)
        outcome.lies = trial.lied
        outcome.problems += trial.problems(at_rest=True)
    except AssertionError as error:
        outcome.problems.append(str(error))
    finally:
        kept = bool(outcome.problems and os.environ.get("CLAWBACK_CHAOS_KEEP"))
        if kept:
            shutil.copytree(folder / "disk", folder / "kept", symlinks=True)
            outcome.problems.append(f"kept in {folder}")
        trial.close()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _in_peace(trial: Trial, outcome: Outcome) -> list[str]:
    """Lives that nothing happens to, until the incident is closed or another life changes nothing."""
    last = Life(role="undo") if trial.undone else Life()
    before: set[tuple[str, ReceiptState]] = set()
    for _ in range(_PEACEFUL):
        if status := trial.live(last):
            return [f"a life in peace ended with {status}: {_tail(trial.folder)}"]
        outcome.lives += 1
        now = trial.incidents()
        states = {(receipt.action, receipt.state) for incident in now for receipt in incident.receipts}
        if states == before or all(incident.status is IncidentStatus.CLOSED for incident in now):
            break
        before = states
    return []


def undisturbed(playbook: str, detector: str, place: Place, catalog: Catalog) -> Baseline:
    """What a response comes to that nothing happens to."""
    folder = Path(tempfile.mkdtemp(prefix="cb-chaos-", dir=_ROOM))
    trial = Trial(Plan(0, playbook, detector, ()), folder, place, catalog, None, disks=False)
    try:
        status = trial.live(Life())
        assert status == 0, _tail(folder)
        left = trial.problems(at_rest=True)
        assert not left, (playbook, detector, left)
        journal = Journal(trial.there.record)
        try:
            return baseline(journal, trial.there, int((folder / "borders").read_text()))
        finally:
            journal.dispose()
    finally:
        trial.close()
        shutil.rmtree(folder, ignore_errors=True)


def _tail(folder: Path) -> str:
    log = folder / "log"
    return log.read_text()[-1500:] if log.exists() else ""
