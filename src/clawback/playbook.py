"""What a playbook is: a plain function that reads as the NIST phases, and what it may call.

    @playbook(id="contain-rogue-agent", title="…", answers={"sandbox.down"}, runbook="contain-rogue-agent")
    def contain_rogue_agent(incident: Incident, respond: Respond) -> None:
        with respond.phase(Phase.CONTAIN):
            respond(freeze, freeze.params(agent=incident.agent))

An incident that a finding of another kind joins runs the playbook that answers that one too, side by side by phases:
none recovers before all have contained and eradicated.

The function must be deterministic in the incident: a resumed response runs it again from the top, and every step that
the journal already knows as verified is adopted instead of repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from clawback.action import Action, Params
from clawback.model import Incident, Phase, Receipt

__all__ = ["Playbook", "Respond", "Step", "playbook"]


@dataclass(frozen=True, slots=True)
class Step:
    """One call of `Respond`, not made yet: see `Respond.together`."""

    action: Action[Any]
    params: Params
    after: tuple[Receipt, ...] = ()


class Respond(Protocol):
    """How a playbook acts: one call, one journalled action, one receipt.

    A step that fails or cannot be reached returns its receipt (`failed`, `unverified`); the playbook goes on with what
    does not depend on it, and the incident stays open. `after` names receipts that this step depends on: unless all of
    them are verified, it is not started and its receipt says `failed` with the reason.
    """

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """Enter a phase: recorded in the timeline, and on every receipt made inside."""
        ...

    def __call__(self, action: Action[Any], params: Params, *, after: tuple[Receipt, ...] = ()) -> Receipt:
        """Run the action through the journal, or adopt what the journal already holds."""
        ...

    def together(self, *steps: Step) -> tuple[Receipt, ...]:
        """Make these steps side by side; returns their receipts in the order given.

        For steps of which none needs another's effect. The journal holds them in the order given, however they end,
        and one that fails does not stop the others.
        """
        ...

    def beside(self, *steps: Step) -> None:
        """Begin these steps, and go on: what follows waits for none of them, nor do they for each other.

        For steps that nothing depends on and that may hang, as a message to people. The journal holds them where they
        were begun. One that is asked for again is waited for first, and all of them by `join`.
        """
        ...

    def join(self) -> None:
        """Wait for all that was begun `beside`; so does the end of the playbook, however it ends."""
        ...

    def skip(self, action: Action[Any], reason: str) -> None:
        """Say in the timeline, once, why a step that this playbook may make is not made in this incident."""
        ...

    def incident(self) -> Incident:
        """The incident as it stands now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """A playbook, declared. `answers` are the detector ids it is started by.

    `covers` are ids of playbooks all of whose containment and eradication is in this one: where both are asked for in
    one incident, this one is enough.
    """

    id: str
    title: str
    answers: frozenset[str]
    runbook: str
    run: Callable[[Incident, Respond], None]
    doc: str = ""
    covers: frozenset[str] = frozenset()


def playbook(
    *,
    id: str,  # noqa: A002 - the field's word for it
    title: str,
    answers: set[str],
    runbook: str,
    covers: AbstractSet[str] = frozenset(),
) -> Callable[[Callable[[Incident, Respond], None]], Playbook]:
    """Turn the function below into a `Playbook`; its docstring is its description."""

    def declare(run: Callable[[Incident, Respond], None]) -> Playbook:
        return Playbook(
            id=id,
            title=title,
            answers=frozenset(answers),
            runbook=runbook,
            run=run,
            doc=(run.__doc__ or "").strip(),
            covers=frozenset(covers),
        )

    return declare
