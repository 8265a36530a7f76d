"""Runs the playbooks of one incident as one response: none goes on before all have come as far.

All contain before one eradicates, and all eradicate before one recovers: each is run as far as the first such phase,
then all as far as the next. A step that two playbooks have is one step, made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from clawback.action import Action, Params
from clawback.errors import NotFound
from clawback.model import Incident, Phase, Receipt, ReceiptState
from clawback.playbook import Playbook, Step
from clawback.response.respond import Responder
from clawback.response.response import step_key
from clawback.response.rules import as_far_as_it_goes

__all__ = ["Grown", "chosen", "run_all"]

_STOPS = (Phase.ERADICATE, Phase.RECOVER, Phase.POST_INCIDENT)


class Grown(Exception):
    """A playbook joined before recovery began."""


class _Far(Exception):
    """The playbook has come as far as it may for now."""


def chosen(incident: Incident, first: Playbook, known: Mapping[str, Playbook]) -> tuple[Playbook, ...]:
    """The playbook that the incident was opened with, then each that joined and that no other of them covers.

    `NotFound` for one that is not among `known`.
    """
    names = [name for name in incident.playbooks if name not in ("", incident.playbook, first.id)]
    if strangers := [name for name in names if name not in known]:
        raise NotFound(f"no playbook {strangers[0][:80]!a}", hint="`clawback catalog` lists them")
    joined = [known[name] for name in names]
    covered = {name for book in (first, *joined) for name in book.covers}
    return first, *(book for book in joined if book.id not in covered)


def run_all(
    books: Sequence[Playbook], incident: Incident, responder: Responder, grown: Callable[[Incident], bool]
) -> None:
    """Run them, to the end of the last. `Grown` where the incident, before an agent could be let go, has `grown`."""
    parts = [_Part(book, incident, responder, grown) for book in books]
    for stop in (*(_STOPS if len(books) > 1 else ()), None):
        for part in parts:
            part.run(stop, others=frozenset().union(*(x.taken for x in parts if x is not part)) - part.taken)


class _Part:
    """`Respond` for one playbook among others.

    Run again, from the top, it is given the same receipts call by call, as they stand now: an attempt is made once in a
    run, whatever came of it.
    """

    def __init__(
        self, book: Playbook, incident: Incident, responder: Responder, grown: Callable[[Incident], bool]
    ) -> None:
        self._book, self._at, self._responder, self._grown = book, incident, responder, grown
        self._stop: Phase | None = None
        self._others: frozenset[str] = frozenset()
        self._recovering = False
        self._calls: list[Receipt] = []
        self._next = 0
        self._begun: set[str] = set()

    def run(self, stop: Phase | None, *, others: frozenset[str]) -> None:
        """As far as `stop`. `others`: keys of steps of other playbooks that recovery depends on."""
        self._stop, self._others, self._next = stop, others, 0
        with suppress(_Far):
            self._book.run(self._at, self)

    @property
    def taken(self) -> frozenset[str]:
        """Keys of what it did to contain and to eradicate."""
        return frozenset(x.key for x in self._calls if x.phase in (Phase.CONTAIN, Phase.ERADICATE))

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Enter a phase, or come no further for now."""
        if self._stop in _STOPS and phase in _STOPS and _STOPS.index(phase) >= _STOPS.index(self._stop):
            raise _Far
        if phase is Phase.RECOVER and self._grown(self.incident()):
            raise Grown
        before, self._recovering = self._recovering, phase is Phase.RECOVER
        try:
            with self._responder.phase(phase):
                yield
        finally:
            self._recovering = before

    def __call__(self, action: Action[Any], params: Params, *, after: tuple[Receipt, ...] = ()) -> Receipt:
        """Run the action, or adopt what the journal already holds."""
        (again,) = self._again(action) or (None,)
        if again is None:
            again = self._responder(action, params, after=(*after, *self._awaited()))
            self._made(again)
        return again

    def together(self, *steps: Step) -> tuple[Receipt, ...]:
        """Make these steps side by side."""
        if again := self._again(*(step.action for step in steps)):
            return again
        awaited = self._awaited()
        made = self._responder.together(*(Step(x.action, x.params, (*x.after, *awaited)) for x in steps))
        self._made(*made)
        return made

    def beside(self, *steps: Step) -> None:
        """Begin these steps, and go on."""
        left = {step_key(step.action, step.params): step for step in steps}
        self._responder.beside(*(step for key, step in left.items() if key not in self._begun))
        self._begun |= left.keys()

    def join(self) -> None:
        """Wait for all that was begun `beside`."""
        self._responder.join()

    def skip(self, action: Action[Any], reason: str) -> None:
        """Say why a step is not made."""
        self._responder.skip(action, reason)

    def incident(self) -> Incident:
        """The incident as it stands now."""
        return self._responder.incident()

    def _made(self, *receipts: Receipt) -> None:
        self._calls[self._next :] = receipts
        self._next += len(receipts)

    def _again(self, *actions: Action[Any]) -> tuple[Receipt, ...]:
        """What these calls made before, in this run; empty where they are new, or other ones than then."""
        before = self._calls[self._next : self._next + len(actions)]
        if [x.action for x in before] != [action.id for action in actions]:
            return ()
        self._next += len(actions)
        now = {x.id: x for x in self.incident().receipts}
        return tuple(now.get(x.id, x) for x in before)

    def _awaited(self) -> tuple[Receipt, ...]:
        """What other playbooks took and that was not seen to hold: the agent is not let go while they miss it."""
        if not self._recovering or not self._others:
            return ()
        return tuple(
            x
            for x in self.incident().receipts
            if x.key in self._others and x.state is not ReceiptState.VERIFIED and not as_far_as_it_goes(x)
        )
