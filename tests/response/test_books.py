"""Several playbooks of one incident: by phases side by side, a common step once, recovery only when all are ready."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest

from clawback.errors import Unreachable
from clawback.model import Enforcement, IncidentStatus, Phase, ReceiptState
from clawback.playbook import Playbook, Step
from clawback.response import Responder, run_playbook

V, F, I, U = ReceiptState.VERIFIED, ReceiptState.FAILED, ReceiptState.INTENDED, ReceiptState.UNVERIFIED  # noqa: E741
PHASES = (Phase.CONTAIN, Phase.ERADICATE, Phase.RECOVER, Phase.POST_INCIDENT)


@pytest.fixture
def books(action: Any) -> Any:
    """Declares playbooks that make `common` and a step of their own in each phase."""

    def declare(*names: str, covers: dict[str, set[str]] | None = None) -> dict[str, Playbook]:
        def body(name: str) -> Any:
            def run(_incident: Any, respond: Any) -> None:
                for phase in PHASES:
                    with respond.phase(phase):
                        respond(action, action.params(name=f"{phase.value} common"))
                        respond(action, action.params(name=f"{phase.value} {name}"))

            return run

        return {
            name: Playbook(
                id=name,
                title="t",
                answers=frozenset(),
                runbook="r",
                run=body(name),
                covers=frozenset((covers or {}).get(name, ())),
            )
            for name in names
        }

    return declare


@pytest.fixture
def joins(response: Any) -> Any:
    """A finding that another playbook answers joins the incident."""

    def join(playbook: str) -> None:
        found = response.journal.incident(response.incident_id).findings
        other = dataclasses.replace(found[0], technique=playbook, resource=f"/{len(found)}")
        incident, opened = response.journal.open_or_join(other, playbook=playbook)
        assert (incident.id, opened) == (response.incident_id, False)

    return join


def names(run: Any) -> list[str]:
    return [x.params["name"] for x in sorted(run.incident.receipts, key=lambda x: x.verified_ns)]


def test_what_joins_is_on_record_once(response: Any, joins: Any) -> None:
    for name in ("book", "wide", "wide", "other"):
        joins(name)
    incident = response.journal.incident(response.incident_id)
    assert incident.playbook == "book"
    assert incident.playbooks == ("book", "wide", "other")
    assert not response.journal.audit_verify()[1]


def test_all_contain_then_all_eradicate_then_all_recover(response: Any, books: Any, joins: Any, outside: Any) -> None:
    joins("wide")
    known = books("book", "wide")
    run = run_playbook(known["book"], Responder(response), known)
    assert run.incident.status is IncidentStatus.CLOSED
    assert names(run) == [f"{phase.value} {who}" for phase in PHASES for who in ("common", "book", "wide")]
    assert outside.done["apply"] == len(run.incident.receipts) == 12


def test_one_that_another_covers_is_not_run_and_the_first_always_is(response: Any, books: Any, joins: Any) -> None:
    for name in ("narrow", "wide"):
        joins(name)
    known = books("book", "narrow", "wide", covers={"wide": {"narrow", "book"}})
    run = run_playbook(known["book"], Responder(response), known)
    assert {name.split()[-1] for name in names(run)} == {"common", "book", "wide"}


@pytest.mark.parametrize("phase", [Phase.CONTAIN, Phase.ERADICATE])
def test_what_one_could_not_do_keeps_all_from_recovering(
    response: Any, books: Any, joins: Any, action: Any, phase: Phase
) -> None:
    joins("wide")
    known = books("book", "wide")
    broken = [True]

    def apply(context: Any, params: Any, captured: Any) -> Any:
        if broken and params.name == f"{phase.value} wide":
            raise Unreachable("away")
        return action.apply(context, params, captured)

    failing = dataclasses.replace(action, apply=apply)
    known["wide"] = dataclasses.replace(known["wide"], run=with_action(failing, "wide"))
    run = run_playbook(known["book"], Responder(response), known)
    assert run.incident.status is IncidentStatus.OPEN
    state = {x.params["name"]: x.state for x in run.incident.receipts}
    assert state[f"{phase.value} wide"] is I
    assert {state[f"recover {who}"] for who in ("common", "book")} == {F}
    assert [x.attempts for x in run.incident.receipts if x.params["name"] == f"{phase.value} wide"] == [1]
    broken.clear()
    assert run_playbook(known["book"], Responder(response), known).incident.status is IncidentStatus.CLOSED


def with_action(action: Any, name: str) -> Any:
    def run(_incident: Any, respond: Any) -> None:
        for phase in PHASES:
            with respond.phase(phase):
                respond(action, action.params(name=f"{phase.value} {name}"))

    return run


def test_what_a_host_does_not_give_is_waited_for_by_nobody(
    response: Any, books: Any, joins: Any, make: Any, action: Any
) -> None:
    joins("wide")
    known = books("book", "wide")
    seal = make(id="agent.seal", verify=lambda *_: dataclasses.replace(action.verify(*_), verified=False))

    def run(_incident: Any, respond: Any) -> None:
        with respond.phase(Phase.CONTAIN):
            assert respond(seal, seal.params(name="seal")).state is U

    known["wide"] = dataclasses.replace(known["wide"], run=run)
    ended = run_playbook(known["book"], Responder(response), known).incident
    state = {x.params["name"]: x.state for x in ended.receipts}
    assert state["recover book"] is V
    assert ended.status is IncidentStatus.OPEN, "and it is said that it is missing"


@pytest.mark.parametrize("phase", [Phase.CONTAIN, Phase.ERADICATE])
def test_one_that_joins_before_recovery_is_heard_before_recovery(
    response: Any, books: Any, joins: Any, phase: Phase
) -> None:
    known = books("book", "wide")
    plain = known["book"].run

    def run(incident: Any, respond: Any) -> None:
        with respond.phase(phase):
            if len(respond.incident().findings) == 1:
                joins("wide")
        plain(incident, respond)

    run_ = run_playbook(dataclasses.replace(known["book"], run=run), Responder(response), known)
    assert run_.incident.status is IncidentStatus.CLOSED
    order = names(run_)
    assert order.index("eradicate wide") < order.index("recover common")


def test_one_that_joins_later_is_run_before_the_incident_closes(response: Any, books: Any, joins: Any) -> None:
    known = books("book", "wide")
    plain = known["book"].run

    def run(incident: Any, respond: Any) -> None:
        plain(incident, respond)
        if len(respond.incident().findings) == 1:
            joins("wide")

    run_ = run_playbook(dataclasses.replace(known["book"], run=run), Responder(response), known)
    assert run_.incident.status is IncidentStatus.CLOSED
    assert "post-incident wide" in names(run_)


def test_steps_beside_hang_for_no_playbook(response: Any, books: Any, joins: Any, make: Any, action: Any) -> None:
    joins("wide")
    known, over = books("book", "wide"), threading.Event()

    def apply(context: Any, params: Any, captured: Any) -> Any:
        assert over.wait(10), "recovery waited for it"
        return action.apply(context, params, captured)

    slow, plain, last = make(id="switch.hang", apply=apply), known["book"].run, known["wide"].run

    def first(incident: Any, respond: Any) -> None:
        respond.beside(Step(slow, slow.params(name="told")))
        plain(incident, respond)

    def second(incident: Any, respond: Any) -> None:
        last(incident, respond)
        over.set()

    known |= {"wide": dataclasses.replace(known["wide"], run=second)}
    run = run_playbook(dataclasses.replace(known["book"], run=first), Responder(response), known)
    assert run.incident.status is IncidentStatus.CLOSED
    assert names(run)[-1] == "told"
    assert {x.attempts for x in run.incident.receipts} == {1}


def test_one_that_is_in_no_catalogue_is_said_and_nothing_is_recovered(response: Any, books: Any, joins: Any) -> None:
    joins("gone")
    known = books("book")
    run = run_playbook(known["book"], Responder(response), known)
    assert "no playbook 'gone'" in run.error
    assert run.incident.status is IncidentStatus.OPEN
    assert not run.incident.receipts


def test_killed_at_any_step_the_next_life_goes_on(
    response: Any, books: Any, joins: Any, outside: Any, errors: Any
) -> None:
    joins("wide")
    known = books("book", "wide")
    for _ in range(12):
        outside.after["apply"] = errors["killed"]()
        with pytest.raises(errors["killed"]):
            run_playbook(known["book"], Responder(response), known)
    run = run_playbook(known["book"], Responder(response), known)
    assert run.incident.status is IncidentStatus.CLOSED
    assert outside.done["effect"] == 12
    assert {x.enforcement for x in run.incident.receipts} == {Enforcement.FULL}
