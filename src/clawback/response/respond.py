"""What a playbook is handed: its calls become journalled steps, made here and now in this process."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from clawback.action import Action, Params
from clawback.errors import Refused
from clawback.model import Incident, Phase, Receipt
from clawback.playbook import Step
from clawback.response.response import Response, step_key

__all__ = ["Responder"]

SIDE_BY_SIDE = 8  # steps of one incident that are made at the same time


class Responder:
    """`clawback.playbook.Respond`, by way of the journal and nothing else.

    `held` says whether the agent's lock is still ours: without it no further step is begun, for somebody else goes on.
    `turn` surrounds the making of each step.
    """

    def __init__(
        self,
        response: Response,
        *,
        held: Callable[[], bool] = lambda: True,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.response = response
        self._held = held
        self._turn = turn
        self._phase: Phase | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._beside: dict[str, Future[Receipt]] = {}

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Enter a phase; leaving it returns to the one around it."""
        before, self._phase = self._phase, phase
        self.response.journal.enter(self.response.incident_id, phase)
        try:
            yield
        finally:
            self._phase = before

    def __call__(self, action: Action[Any], params: Params, *, after: tuple[Receipt, ...] = ()) -> Receipt:
        """Run the action, or adopt what the journal already holds."""
        self._still_ours()
        self._wait_for(step_key(action, params))
        phase = self._phase or action.phase
        return self.make(action, params, lambda: self.response.execute(action, params, phase=phase, after=after))

    def together(self, *steps: Step) -> tuple[Receipt, ...]:
        """A thread for each, up to `SIDE_BY_SIDE`; what one of them raises is raised when all have ended."""
        self._still_ours()
        keys = [step_key(step.action, step.params) for step in steps]
        once = dict(zip(keys, steps, strict=True))  # asked for twice, it is made once
        reserved = self._reserve(once)
        with ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="step") as threads:
            made = {key: self._submit(threads, once[key], call) for key, call in reserved.items()}
        return tuple(made[key].result() for key in keys)

    def beside(self, *steps: Step) -> None:
        """A thread for each, up to `SIDE_BY_SIDE` at once; what one of them raises is raised by `join`."""
        self._still_ours()
        once = {step_key(step.action, step.params): step for step in steps}
        reserved = self._reserve(once)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="beside")
        for key, call in reserved.items():
            self._beside[key] = self._submit(self._threads, once[key], call)

    def join(self) -> None:
        """Wait for all that was begun `beside`; they have all ended when this returns or raises."""
        begun, self._beside = tuple(self._beside.values()), {}
        wait(begun)
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        for one in begun:
            one.result()

    def _wait_for(self, key: str) -> None:
        if (begun := self._beside.pop(key, None)) is not None:
            begun.result()

    def _reserve(self, steps: Mapping[str, Step]) -> dict[str, Callable[[], Receipt]]:
        for key in steps:
            self._wait_for(key)
        return dict(zip(steps, self.response.reserve(tuple(steps.values()), phase=self._phase), strict=True))

    def _submit(self, threads: ThreadPoolExecutor, step: Step, call: Callable[[], Receipt]) -> Future[Receipt]:
        return threads.submit(contextvars.copy_context().run, self.make, step.action, step.params, call)

    def make(self, action: Action[Any], params: Params, call: Callable[[], Receipt]) -> Receipt:
        """One step, made by `call`, on whichever thread; an orchestrator puts itself around it here."""
        del action, params
        with self._turn():
            return call()

    def _still_ours(self) -> None:
        if not self._held():
            raise Refused("the agent's lock was lost: another response goes on", hint="see the incident's timeline")

    def skip(self, action: Action[Any], reason: str) -> None:
        """A line in the timeline, in the phase that the step would be of; the same line again adds none."""
        incident, what = self.incident(), f"{action.id} skipped"
        if not any((line.what, line.detail) == (what, reason) for line in incident.timeline):
            self.response.journal.note(incident, self._phase or action.phase, what, reason)

    def incident(self) -> Incident:
        """The incident as it stands now."""
        return self.response.journal.incident(self.response.incident_id)
