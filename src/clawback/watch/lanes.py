"""Answer findings in parallel across agents and in order within one; what could not be answered is tried again."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from clawback.errors import ClawbackError, Unreachable
from clawback.model import Finding
from clawback.urgency import go_first
from clawback.watch.answer import Answer
from clawback.watch.containment import NotRecorded

__all__ = ["Lanes"]

WAITING_LIMIT = 1000  # findings of one agent that wait at most; the agent is contained by the first of them
PATIENCE = 0.25  # seconds that a finding waits before its agent is frozen ahead
MOST_TOGETHER = 32  # answered at once: some 0.2 s, in which others wait
AT_ONCE = 2  # threads that answer many
TURN_SECONDS = 2.0  # that a thread lets another answer many before it does so beside it: that one may hang
_SOON = 0.2  # of the patience: those that are due so soon after are frozen by the same call
_MOST = 256  # in one call
_TRIES = 3  # of a finding whose answer ends in a defect
_BUSY_SWITCH = 0.005  # seconds; Python's own
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between attempts while a part is away

_log = structlog.get_logger()


class Lanes:
    """`answer` runs in one of `threads` threads; `done` is called there after each answer.

    With more waiting than there are threads, one thread answers many at once by `together`, which gives each finding's
    answer, or None where it is to be answered by itself. `hurry` is called on a thread of its own with the findings
    that have waited too long all the same.
    """

    def __init__(
        self,
        answer: Callable[[Finding], Answer],
        done: Callable[[Finding, Answer], None],
        *,
        together: Callable[[Sequence[Finding]], Sequence[Answer | None]] | None = None,
        hurry: Callable[[Sequence[Finding]], object] | None = None,
        patience: float = PATIENCE,
        threads: int = 4,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._answer = answer
        self._done = done
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Finding]] = {}
        self._next: deque[str] = deque()  # agents whose turn has not come
        self._begun: set[str] = set()
        self._late: deque[tuple[float, Finding]] = deque()
        self._going = False
        self._threads = threads
        self._hurry = hurry
        self._together = together
        self._turn = threading.BoundedSemaphore(AT_ONCE)
        self._patience = patience
        self._busy = False
        self._usual = sys.getswitchinterval()
        self._stopping = threading.Event()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead", initializer=go_first)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="reflex", initializer=go_first)
        for _ in range(threads):  # a thread's start is no part of any reflex
            self._pool.submit(time.sleep, 0.001)

    def put(self, finding: Finding) -> None:
        """Answer this one after those of the same agent that were put before."""
        with self._lock:
            lane = self._waiting.get(finding.agent)
            if lane is not None:
                if len(lane) >= WAITING_LIMIT:
                    self.counts["overflow"] += 1
                    return
                lane.append(finding)
                return
            self._waiting[finding.agent] = deque([finding])
            self._next.append(finding.agent)
            go = self._hurry is not None and len(self._begun) >= self._threads
            if go:
                self._late.append((time.monotonic() + self._patience, finding))
                go, self._going = not self._going, True
            self._hands()
        self._pool.submit(self._work)
        if go and self._hurry is not None:
            self._ahead.submit(self._go_ahead, self._hurry)

    @property
    def idle(self) -> bool:
        """Every finding that was put has been answered."""
        with self._lock:
            return not any(self._waiting.values())

    def stop(self) -> None:
        """Finish what is being answered; leave the rest, which the telemetry still holds."""
        self._stopping.set()
        self._ahead.shutdown(wait=True)
        self._pool.shutdown(wait=True)

    def _work(self) -> None:
        """Whoever is next; called at least as often as somebody is."""
        if self._together is None or len(self._next) <= self._threads:
            for agent in self._take(1):
                self._one(agent)
            return
        # Two at a time, one on record here while the core makes the other's order; a third would take their time.
        mine = self._turn.acquire(timeout=TURN_SECONDS)
        try:
            agents = self._take(MOST_TOGETHER)
            left = self._answer_together(agents, self._together) if len(agents) > 1 else agents
        finally:
            if mine:
                self._turn.release()
        for agent in left:
            with suppress(RuntimeError):  # stopping: the telemetry still holds it
                self._pool.submit(self._one, agent)

    def _take(self, most: int) -> list[str]:
        with self._lock:
            taken = [self._next.popleft() for _ in range(min(most, len(self._next)))]
            self._begun.update(taken)
        return taken

    def _answer_together(
        self, agents: Sequence[str], together: Callable[[Sequence[Finding]], Sequence[Answer | None]]
    ) -> Sequence[str]:
        """Those that are to be gone on with one by one: not answered by this, or with more that waits."""
        with self._lock:
            findings = [self._waiting[agent][0] for agent in agents]
        try:
            answers = together(findings)
        except Exception:
            _log.exception("findings not answered together", agents=len(agents))
            return agents
        left: list[str] = []
        for agent, finding, answer in zip(agents, findings, answers, strict=True):
            if answer is None:
                left.append(agent)
                continue
            self.counts["together"] += 1
            self._tell(finding, answer)
            if not self._over(agent):
                left.append(agent)
        return left

    def _over(self, agent: str) -> bool:
        """The agent's first finding is answered; whether it was the last."""
        with self._lock:
            lane = self._waiting[agent]
            lane.popleft()
            if lane:
                return False
            self._leave(agent)
            return True

    def _leave(self, agent: str) -> None:
        del self._waiting[agent]
        self._begun.discard(agent)
        self._hands()

    def _one(self, agent: str) -> None:
        pause, defects = _FIRST_PAUSE, 0
        while not self._stopping.is_set():
            with self._lock:
                lane = self._waiting[agent]
                if not lane:
                    self._leave(agent)
                    return
                finding = lane[0]
            try:
                answer = self._answer(finding)
            except (Unreachable, NotRecorded) as error:
                self.counts["retried"] += 1
                _log.error("finding not answered yet", detector=finding.detector, agent=agent, error=str(error))
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            except Exception:
                defects += 1
                _log.exception("finding not answered", detector=finding.detector, agent=agent, times=defects)
                if defects < _TRIES and not self._stopping.wait(_FIRST_PAUSE):
                    continue
                self.counts["failed"] += 1
            else:
                self._tell(finding, answer)
            pause, defects = _FIRST_PAUSE, 0
            with self._lock:
                lane.popleft()

    def _hands(self) -> None:
        """How long a thread keeps the interpreter from others: briefly while one answer is all there is to make; with
        more than there are threads, what counts is when the last is made, and each change of hands costs.
        """
        busy = len(self._waiting) > self._threads
        if busy is not self._busy:
            self._busy = busy
            sys.setswitchinterval(_BUSY_SWITCH if busy else self._usual)

    def _go_ahead(self, hurry: Callable[[Sequence[Finding]], object]) -> None:
        while True:
            with self._lock:
                if not self._late:
                    self._going = False
                    return
                due = self._late[0][0]
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            now = time.monotonic() + self._patience * _SOON
            with self._lock:
                batch: list[Finding] = []
                while self._late and self._late[0][0] <= now and len(batch) < _MOST:
                    _, finding = self._late.popleft()
                    if finding.agent in self._waiting and finding.agent not in self._begun:
                        batch.append(finding)  # its turn has not come meanwhile
            if not batch:
                continue
            try:
                hurry(batch)
                self.counts["ahead"] += len(batch)
            except ClawbackError as error:  # the answers themselves come, and say what they meet
                _log.warning("not gone ahead of the answers", agents=len(batch), error=error.message)
            except Exception:
                _log.exception("not gone ahead of the answers", agents=len(batch))

    def _tell(self, finding: Finding, answer: Answer) -> None:
        try:
            self._done(finding, answer)
        except Exception:
            self.counts["failed"] += 1
            _log.exception("answer not passed on", incident=answer.incident)
