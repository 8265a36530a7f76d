"""Times and receipts: nothing that was not verified yields a time."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from clawback.model import Incident, ReceiptState
from clawback.reports.summary import catalogue, phases, record, summarise
from clawback.reports.ticket import markdown
from clawback.reports.timeline import render
from clawback.reports.times import receipts, times_ms


def without(incident: Incident, action: str, state: ReceiptState) -> Incident:
    return replace(
        incident, receipts=tuple(replace(x, state=state) if x.action == action else x for x in incident.receipts)
    )


def test_times_are_since_the_first_rogue_event(make: Callable[..., Incident]) -> None:
    assert times_ms(make()) == {
        "detected": 1.0,
        "frozen": 2.5,
        "isolated": 5.0,
        "verified": 6.0,
        "credentials_refused": 42.0,
        "recovered": 82.0,
    }


@pytest.mark.parametrize(
    ("action", "lost"),
    [
        ("agent.freeze", {"frozen", "verified"}),
        ("agent.isolate", {"isolated", "verified"}),
        ("vault.rotate-token", {"credentials_refused"}),
        ("aws.rotate-key", {"credentials_refused"}),
        ("agent.relaunch", {"recovered"}),
        ("policy.validate", {"recovered"}),
    ],
)
@pytest.mark.parametrize("state", [s for s in ReceiptState if s is not ReceiptState.VERIFIED])
def test_what_was_not_verified_has_no_time(
    make: Callable[..., Incident], action: str, lost: set[str], state: ReceiptState
) -> None:
    times = times_ms(without(make(), action, state))
    assert {name for name, value in times.items() if value is None} == lost


def test_an_incident_without_findings_counts_from_its_opening(make: Callable[..., Incident]) -> None:
    assert times_ms(make(findings=0))["detected"] == 0.0


def test_receipts_as_data(make: Callable[..., Incident]) -> None:
    found = receipts(without(make(), "agent.freeze", ReceiptState.FAILED))
    assert found[0] == {
        "action": "agent.freeze",
        "state": "failed",
        "enforcement": "full",
        "attempts": found[0]["attempts"],
        "proof": "agent.freeze was seen",
    }


def test_the_record_is_whole(make: Callable[..., Incident]) -> None:
    incident = make()
    found = record(incident)
    assert found["times_ms"]["frozen"] == 2.5
    assert len(found["receipts"]) == 9
    assert [x["phase"] for x in phases(incident)] == ["identify", "contain", "eradicate", "recover", "post-incident"]
    assert summarise(incident)["severity"] == "critical"
    assert found["artefacts"] == {"evidence": "ordinary"}


def test_the_catalogue_as_data() -> None:
    from clawback.catalog import load

    found = catalogue(load())
    assert {"id": "agent.freeze", "summary": "Freeze every process of the agent and keep it frozen."} in found[
        "actions"
    ]
    assert all(row["summary"] for rows in found.values() for row in rows)


@pytest.mark.parametrize("text", ["[bold red]x[/bold red] [link=https://evil.test]y[/link]", "\x1b[2J\x07", "\u202e"])
def test_a_terminal_is_shown_text_alone(make: Callable[..., Incident], text: str) -> None:
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=True, color_system=None).print(render(make(text)))
    shown = out.getvalue()
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "\x1b]8" not in shown
    if "[bold" in text:
        assert "[bold red]x[/bold red]" in shown


def test_an_incident_of_which_nothing_is_known_yet_has_a_ticket(make: Callable[..., Incident]) -> None:
    bare = replace(make(findings=0, lines=0), receipts=())
    text = markdown(bare)
    assert "Nothing has been contained." in text
    assert "Not recorded yet." in text
    assert "not assessed yet" in text
    assert "all 0 steps so far are settled" in text


def test_the_ticket_says_what_keeps_the_incident_open(make: Callable[..., Incident]) -> None:
    text = markdown(without(make(), "agent.isolate", ReceiptState.UNVERIFIED))
    assert "1 of 9 steps are not settled: agent.isolate unverified" in text


def test_the_ticket_shows_the_suspected_change(make: Callable[..., Incident]) -> None:
    assert "\n    --- a\n    +++ b\n    +  domain: ordinary\n" in markdown(make())
