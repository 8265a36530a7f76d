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
from typing import Any

from chaos.invariants import Baseline, baseline, broken
from chaos.outside import TICK, Outside
from chaos.plan import Life, Plan
from sqlalchemy import Connection, text

from clawback.actions.agent_freeze import ACTION as FREEZE
from clawback.actions.agent_isolate import ACTION as ISOLATE
from clawback.catalog import Catalog
from clawback.errors import ClawbackError
from clawback.journal import Journal
from clawback.model import Finding, Incident, IncidentStatus, Level, Phase, Severity
from clawback.response import Responder, Response, run_playbook, undo
from clawback.world import World

__all__ = ["Outcome", "finding_for", "run", "undisturbed"]

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


def finding_for(detector: str) -> Finding:
    """An alert that this detector could have raised about the agent of the world in memory."""
    return Finding(
        detector=detector,
        agent="a",
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

    def __init__(self, life: Life) -> None:
        self.count, self._life, self._lock = 0, life, threading.Lock()
        self.offset = life.clock

    def __call__(self, _where: str) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._life.step_at:
                self.offset += self._life.step
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
        """SQLite's own limit, so that what comes is its own `database or disk is full`."""
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
        self, plan: Plan, folder: Path, there: Any, catalog: Catalog, template: Path, like: Baseline | None
    ) -> None:
        self.plan, self.folder, self.catalog, self.like = plan, folder, catalog, like
        self.outside = Outside(there)
        self.url = f"sqlite:///{folder / 'journal.db'}"
        shutil.copy(template, folder / "journal.db")
        self.playbook = catalog.playbooks[plan.playbook]
        self.finding = finding_for(plan.detector)

    def live(self, life: Life) -> int:
        self.outside.faults = life.faults
        return self.outside.live(lambda world: self._live(life, world), kill_after=life.after)

    def _live(self, life: Life, world: World) -> None:
        borders = _Borders(life)
        TICK[0] = borders
        _clocked(borders)
        (self.folder / "log").mkdir(exist_ok=True)
        descriptor = os.open(self.folder / "log" / "lives", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        journal = _Journal(self.url, borders, life.pages)
        try:
            self._respond(life, world, journal)
        except ClawbackError as error:  # what a full disk or an absent part may bring it to: the next life goes on
            os.write(2, f"{life.role}: {error.message}\n".encode())
        (self.folder / "borders").write_text(str(borders.count))

    def _respond(self, life: Life, world: World, journal: Journal) -> None:
        incident, _ = journal.open_or_join(self.finding, playbook=self.playbook.id)
        response = Response(journal, world, "responder", incident.id, actions=self.catalog.actions)
        with journal.lock(incident.agent):
            if life.role == "reflex":
                for action in (FREEZE, ISOLATE):
                    params = action.params(agent="a", instance="i1", reason="reflex")
                    response.execute(action, params, phase=Phase.CONTAIN)
            elif life.role == "undo":
                for _ in undo(response, "a false alarm"):
                    pass
            elif journal.incident(incident.id).status is IncidentStatus.OPEN:
                run_playbook(self.playbook, Responder(response))

    def incidents(self) -> tuple[Incident, ...]:
        journal = Journal(self.url)
        try:
            return journal.incidents()
        finally:
            journal.dispose()

    def problems(self, *, at_rest: bool) -> list[str]:
        journal = Journal(self.url)
        try:
            return broken(
                journal,
                self.outside.there,
                undone=self.undone,
                lied=self.outside.lied > 0,
                at_rest=at_rest,
                like=self.like,
            )
        finally:
            journal.dispose()

    @property
    def undone(self) -> bool:
        return any(life.role == "undo" for life in self.plan.lives)


def run(plan: Plan, there_of: Any, catalog: Catalog, template: Path, like: Baseline) -> Outcome:
    """The trial of this plan, in a folder of its own that is gone afterwards."""
    folder, outcome = Path(tempfile.mkdtemp(prefix="cb-chaos-", dir=_ROOM)), Outcome(plan)
    try:
        trial = Trial(plan, folder, there_of(folder / "evidence"), catalog, template, like)
        for number, life in enumerate(plan.lives, start=1):
            outcome.kills += trial.live(life) == -signal.SIGKILL
            outcome.lives += 1
            outcome.problems += [f"after life {number}: {problem}" for problem in trial.problems(at_rest=False)]
        last = Life(role="undo") if trial.undone else Life()
        for _ in range(_PEACEFUL):
            if status := trial.live(last):
                outcome.problems.append(f"a life in peace ended with {status}: {_tail(folder)}")
                break
            outcome.lives += 1
            if all(incident.status is IncidentStatus.CLOSED for incident in trial.incidents()):
                break
        outcome.lies = trial.outside.lied
        outcome.problems += trial.problems(at_rest=True)
    except AssertionError as error:
        outcome.problems.append(str(error))
    finally:
        if not outcome.problems or not os.environ.get("CLAWBACK_CHAOS_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            outcome.problems.append(f"kept in {folder}")
    return outcome


def undisturbed(playbook: str, detector: str, there_of: Any, catalog: Catalog, template: Path) -> Baseline:
    """What a response comes to that nothing happens to."""
    folder = Path(tempfile.mkdtemp(prefix="cb-chaos-", dir=_ROOM))
    try:
        plan = Plan(0, playbook, detector, ())
        trial = Trial(plan, folder, there_of(folder / "evidence"), catalog, template, None)
        status = trial.live(Life())
        assert status == 0, _tail(folder)
        left = trial.problems(at_rest=True)
        assert not left, (playbook, detector, left)
        journal = Journal(trial.url)
        try:
            return baseline(journal, trial.outside.there, int((folder / "borders").read_text()))
        finally:
            journal.dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tail(folder: Path) -> str:
    log = folder / "log" / "lives"
    return log.read_text()[-1500:] if log.exists() else ""
