"""Tickets as files: one pair an incident, replaced whole, never outside the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from clawback.connectors.tickets import FileTickets
from clawback.errors import InvalidInput, NotEnforced


def test_written_tickets_read_back(tmp_path: Path) -> None:
    tickets = FileTickets(tmp_path / "tickets")
    where = tickets.write("INC-1", markdown="# é\n", jira="{}")
    assert tickets.read("INC-1") == {"markdown": "# é\n", "jira": "{}"}
    assert Path(where["markdown"]).read_text("utf-8") == "# é\n"
    assert Path(where["jira"]).stat().st_mode & 0o777 == 0o600


def test_the_same_incident_replaces_its_ticket(tmp_path: Path) -> None:
    tickets = FileTickets(tmp_path)
    tickets.write("INC-1", markdown="one", jira="{}")
    tickets.write("INC-1", markdown="two", jira="{}")
    assert tickets.read("INC-1")["markdown"] == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["INC-1.json", "INC-1.md"]


def test_no_ticket_is_empty(tmp_path: Path) -> None:
    assert FileTickets(tmp_path / "none").read("INC-9") == {}


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "a\0b", "x" * 200])
def test_an_incident_cannot_name_another_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        FileTickets(tmp_path).write(name, markdown="x", jira="{}")


def test_lone_surrogates_do_not_stop_a_ticket(tmp_path: Path) -> None:
    tickets = FileTickets(tmp_path)
    tickets.write("INC-1", markdown="a\ud800b", jira="{}")
    assert tickets.read("INC-1")["markdown"] == "a\\ud800b"


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    folder = tmp_path / "tickets"
    folder.mkdir()
    (folder / ".INC-1.md.new").symlink_to(victim)
    with pytest.raises(NotEnforced):
        FileTickets(folder).write("INC-1", markdown="x", jira="{}")
    assert victim.read_text() == "untouched"
