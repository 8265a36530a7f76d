"""What decides about bringing an agent back reads: other incidents in which it was started anew."""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from contextlib import closing
from typing import Any

from clawback.model import Enforcement, Phase, ReceiptState

__all__ = ["brought_back", "erase", "on_record", "rewrite", "write_again"]

_numbers = itertools.count(1)


def brought_back(scene: Any, _outcome: Any = None) -> None:
    """Another incident of the agent, about another instance of it, starts it anew."""
    journal, number = scene.journal, next(_numbers)
    (finding,) = journal.incident(scene.incident_id).findings
    other = dataclasses.replace(
        finding, instance=f"{scene.agent}-other-{number}", resource=f"/another/{number}", events=(f"other-{number}",)
    )
    incident, opened = journal.open_or_join(other, playbook="contain-rogue-agent")
    assert opened
    made = journal.intend(
        incident.id, "agent.relaunch:x", "agent.relaunch", Phase.RECOVER, {}, "another", captured={"instance": "x"}
    )
    journal.applied(made.id, {})
    journal.verified(made.id, "it runs", Enforcement.FULL)


def on_record(scene: Any) -> list[str]:
    """The incidents, by their receipts."""
    return [
        incident.id
        for incident in scene.journal.of_agent(scene.agent)
        if any(x.action == "agent.relaunch" and x.state is ReceiptState.VERIFIED for x in incident.receipts)
    ]


def rewrite(scene: Any, statement: str, *values: Any) -> None:
    """By hand, past the journal."""
    with closing(sqlite3.connect(scene.folder / "journal.db", timeout=10)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def erase(scene: Any, _outcome: Any = None) -> None:
    """That it was started anew once is on record no more."""
    rewrite(scene, "UPDATE receipts SET state = 'failed' WHERE action = 'agent.relaunch'")


def write_again(scene: Any) -> None:
    rewrite(scene, "UPDATE receipts SET state = 'verified' WHERE action = 'agent.relaunch'")
