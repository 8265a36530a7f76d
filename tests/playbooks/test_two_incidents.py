"""Two incidents that hold the same agents: whichever is through first hands the release over, the last lets go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clawback.actions.agent_release import ACTION as RELEASE
from clawback.journal import Journal
from clawback.model import AgentState, IncidentStatus, Level, ReceiptState
from clawback.response import undo

from .test_contain_rogue_agent import Case, V
from .test_related import also

pytestmark = pytest.mark.slow

CLOSED, OPEN = IncidentStatus.CLOSED, IncidentStatus.OPEN


class Two:
    """`a` and a sharer of its token, each with an incident of its own whose reach takes in the other."""

    def __init__(self, journal: Journal, there: Any) -> None:
        also(there, "b", credentials=(replace(there.core.known["a"].credentials[0], name="mine"),))
        self.there, self.journal = there, journal
        self.first = Case(journal, there)
        self.second = Case(journal, there, agent="b", instance="i-b", attempts=(OPENED, THEIRS))

    def beside(self, call: str, count: int = 1) -> None:
        """The second incident runs in the middle of the first's, just before its `count`th `call` at the core."""
        left = [count]

        def now(made: str) -> None:
            left[0] -= made == call
            if not left[0]:
                self.there.core.before_call = None
                self.second.run()

        self.there.core.before_call = now

    def left(self) -> list[tuple[str, str, str]]:
        return [
            (x.key, x.state.value, x.error or x.proof)
            for case in (self.first, self.second)
            for x in self.journal.incident(case.id).receipts
            if x.state is not V
        ]

    def status(self) -> tuple[IncidentStatus, IncidentStatus]:
        return self.journal.incident(self.first.id).status, self.journal.incident(self.second.id).status

    def released(self, case: Case, agent: str) -> Any:
        return next(x for x in case.receipts("agent.release") if x.params["agent"] == agent)


OPENED = ("connect", "files.partner.test:443")
THEIRS = ("connect", "second.partner.test:443")


@pytest.fixture
def two(journal: Journal, there: Any) -> Two:
    return Two(journal, there)


@pytest.mark.parametrize(
    "moment",
    [("contain isolate", 1), ("contain isolate", 2), ("evidence", 2), ("contain stop", 1), ("release", 1)],
    ids=lambda moment: f"{moment[0]} {moment[1]}",
)
def test_whichever_is_first_both_close_and_nobody_stays_held(two: Two, moment: tuple[str, int]) -> None:
    two.beside(*moment)
    two.first.run()
    for _ in range(2):  # as a worker goes on with what stayed open
        for case in (two.second, two.first):
            case.run()
    assert two.status() == (CLOSED, CLOSED), two.left()
    for name in ("a", "b"):
        info = two.there.core.known[name]
        assert info.hold is None
        assert info.state is AgentState.RUNNING
        assert info.policy == "support", "let go in full"


def test_the_first_to_be_ready_says_who_still_holds_and_the_last_lets_go(two: Two) -> None:
    two.beside("contain isolate", 2)  # the first has just frozen `b` too, and taken no credential yet
    two.first.run()
    handed = two.released(two.second, "b")
    assert handed.state is V
    assert handed.outcome["held_by"] == [two.first.id]
    assert f"held by {two.first.id}" in handed.proof
    assert two.second.receipts("release.observe-only") == [], "it is not started while it is held"
    assert two.released(two.second, "a").outcome["held_by"] == [two.first.id]
    assert two.status() == (CLOSED, CLOSED), two.left()
    assert two.released(two.first, "a").outcome["held_by"] == []
    assert two.first.state("policy.validate") is V
    # `b` was stopped by its own incident: the one that let it go starts it.
    assert two.there.core.known["b"].state is AgentState.RUNNING


def test_who_takes_a_release_over_replays_what_was_rogue_there(two: Two) -> None:
    two.beside("contain isolate", 2)
    two.first.run()
    assert two.released(two.first, "b").outcome["answers_for"] == [two.second.id]
    assert two.released(two.first, "a").outcome["answers_for"] == [], "the first's own agent did nothing else"
    replayed = next(x for x in two.first.receipts("policy.validate") if x.params["agent"] == "b")
    assert replayed.state is V
    assert "second.partner.test:443" in replayed.proof
    assert f"those of {two.second.id} among them" in replayed.proof
    assert "/root/.aws/credentials" not in replayed.proof, "what another agent did"


def test_who_takes_a_release_over_holds_it_again_where_that_is_allowed(two: Two) -> None:
    def opened(made: str) -> None:
        if made == "contain isolate" and two.there.core.known["b"].hold:
            two.there.core.before_call = None
            two.second.run()
            two.there.core.open_calls.add(THEIRS)  # it was denied to nobody who looked: the second has handed over

    two.there.core.before_call = opened
    two.first.run()
    assert two.status() == (OPEN, CLOSED), two.left()
    replayed = next(x for x in two.first.receipts("policy.validate") if x.params["agent"] == "b")
    assert replayed.state is ReceiptState.UNVERIFIED
    assert "NOT denied: connect second.partner.test:443" in replayed.proof
    hold = two.there.core.known["b"].hold
    assert set(hold.levels) == {Level.FREEZE, Level.ISOLATE}
    assert {x.incident for x in hold.orders} == {two.first.id}
    assert two.there.core.known["a"].hold is None
    two.there.core.open_calls.clear()
    two.there.core.release("b", reason="mended", by="ann", incident=two.first.id)
    two.first.run()
    assert two.status() == (CLOSED, CLOSED), two.left()


def test_one_that_another_incident_holds_stays_held_until_that_is_through(two: Two) -> None:
    two.there.core.open_calls.add(OPENED)  # the second cannot prove its recovery
    two.second.run()
    assert two.status() == (OPEN, OPEN)
    two.there.core.open_calls.clear()
    two.first.run()
    assert two.status() == (CLOSED, OPEN), two.left()
    assert set(two.there.core.known["a"].hold.levels) >= {Level.FREEZE, Level.ISOLATE}
    assert {x.incident for x in two.there.core.known["a"].hold.orders} == {two.second.id}


def test_cut_off_between_the_lifting_and_its_record_it_says_the_same(two: Two, monkeypatch: Any) -> None:
    class Killed(BaseException):
        """The process ends here."""

    two.there.core.open_calls.add(OPENED)
    two.second.run()
    two.there.core.open_calls.clear()
    release = two.there.core.release

    def dies(*given: Any, **more: Any) -> Any:
        release(*given, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(two.there.core, "release", dies)
        with pytest.raises(Killed):
            two.first.run()
    assert two.released(two.first, "a").state is ReceiptState.INTENDED
    two.first.run()
    assert two.released(two.first, "a").outcome["held_by"] == [two.second.id]
    assert two.journal.incident(two.first.id).status is CLOSED


@pytest.mark.parametrize("how", ["by hand", "closed", "undone"])
def test_only_who_will_let_it_go_is_handed_the_release(two: Two, how: str) -> None:
    core = two.there.core
    if how == "by hand":
        core.contain("a", Level.FREEZE, reason="r", by="ann", incident="INC-20260101-000000")
    else:
        core.open_calls.add(OPENED)
        two.second.run()
        core.open_calls.clear()
    if how == "closed":
        with two.journal.writing() as connection:
            two.journal._set(connection, two.second.id, "closed", status=CLOSED)
    if how == "undone":
        core.lies |= {Level.FREEZE}
        next(undo(two.second.response(), "false alarm"))  # begun, and cut off
        core.lies.clear()
    ended = two.first.run()
    assert ended.status is OPEN
    assert two.released(two.first, "a").state is ReceiptState.UNVERIFIED
    assert core.known["a"].hold is not None


def test_an_agent_that_goes_rogue_again_before_its_first_incident_is_through(journal: Journal, there: Any) -> None:
    first = Case(journal, there)
    there.core.open_calls.add(OPENED)
    first.run()
    info = there.core.known["a"]
    assert {x.incident for x in info.hold.orders} == {first.id}, "it was held again"
    there.core.open_calls.clear()
    second = Case(journal, there, instance=info.instance, events=("e2",), attempts=(THEIRS,))
    ended = second.run()
    assert ended.status is CLOSED, [(x.key, x.error or x.proof) for x in ended.receipts if x.state is not V]
    assert second.receipts("agent.release")[0].outcome["held_by"] == [first.id]
    assert {x.incident for x in there.core.known["a"].hold.orders} == {first.id}
    there.core.release("a", reason="mended", by="ann", incident=first.id)
    there.core.open_calls.add(THEIRS)
    assert first.run().status is OPEN
    stood = [x for x in journal.incident(first.id).receipts if "NOT denied: connect second" in x.proof]
    assert [(x.action, x.state) for x in stood] == [("release.restricted", ReceiptState.UNVERIFIED)]
    there.core.open_calls.clear()
    there.core.release("a", reason="mended", by="ann", incident=first.id)
    ended = first.run()
    assert ended.status is CLOSED, [(x.key, x.error or x.proof) for x in ended.receipts if x.state is not V]
    assert there.core.known["a"].hold is None
    assert there.core.known["a"].state is AgentState.RUNNING


@pytest.mark.parametrize("levels", [(), ("freeze",)], ids=["whole", "one level"])
def test_a_strangers_hold_alone_is_no_hold_that_is_lifted(
    journal: Journal, there: Any, levels: tuple[str, ...]
) -> None:
    there.core.contain("a", Level.FREEZE, reason="r", by="ann", incident="INC-20260101-000000")
    case = Case(journal, there)
    receipt = case.response().execute(RELEASE, RELEASE.params(agent="a", instance="i1", reason="r", levels=levels))
    assert receipt.state is ReceiptState.UNVERIFIED
    assert "the hold still orders freeze" in receipt.proof
