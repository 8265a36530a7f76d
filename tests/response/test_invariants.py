"""Whatever happens in whatever order, the journal claims no more than the world shows, and no effect is made twice."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clawback.errors import Refused, Unreachable
from clawback.journal import Journal
from clawback.model import IncidentStatus, ReceiptState
from clawback.response import Response
from clawback.world import World

_spec = importlib.util.spec_from_file_location("response_world", Path(__file__).with_name("conftest.py"))
assert _spec is not None
assert _spec.loader is not None
world_of = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(world_of)

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")
PLACES = st.sampled_from(["capture", "apply", "verify", "revert", "verify_reverted", "after apply", "after revert"])
TROUBLES = st.sampled_from([Unreachable("away"), Refused("no"), RuntimeError("defect"), None])


class Machine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{self.folder.name}/journal.db"
        self.outside = world_of.Switches()
        self.action = world_of.switch(self.outside)
        self.journal = Journal(self.url)
        self.incident = self.journal.open_or_join(world_of.FINDING, playbook="book")[0].id
        self.reverts: set[str] = set()
        self.reopen()

    def reopen(self) -> None:
        """A new process: nothing is remembered but the journal."""
        self.journal.dispose()
        self.journal = Journal(self.url)
        world = World(core=None, policies=None, secrets=None, tickets=None)  # type: ignore[arg-type]  # not reached
        self.response = Response(self.journal, world, "test", self.incident, actions={self.action.id: self.action})

    @rule(where=PLACES, what=TROUBLES)
    def trouble_ahead(self, where: str, what: Exception | None) -> None:
        problem = what or world_of.Killed()
        if where.startswith("after "):
            self.outside.after[where.removeprefix("after ")] = problem
        else:
            self.outside.trouble[where] = problem

    @rule(name=st.sampled_from(NAMES))
    def execute(self, name: str) -> None:
        try:
            self.response.execute(self.action, world_of.Name(name=name))
        except world_of.Killed:
            self.reopen()

    @rule(name=st.sampled_from(NAMES))
    def revert(self, name: str) -> None:
        for receipt in self.receipts():
            if receipt.key == f"switch.on:{name}":
                self.reverts.add(name)
                try:
                    self.response.revert(receipt)
                except world_of.Killed:
                    self.reopen()

    @rule()
    def close(self) -> None:
        self.journal.close(self.incident)

    @rule()
    def calm(self) -> None:
        """All troubles end: then every step settles, and the incident closes."""
        self.outside.trouble.clear()
        self.outside.after.clear()
        self.reopen()
        for receipt in self.receipts():
            name = receipt.params["name"]
            if name in self.reverts:
                self.response.revert(receipt)
            else:
                self.response.execute(self.action, world_of.Name(name=name))
        assert self.journal.close(self.incident).status is IncidentStatus.CLOSED

    def receipts(self) -> Any:
        return self.journal.incident(self.incident).receipts

    @invariant()
    def claims_are_true(self) -> None:
        if not hasattr(self, "incident"):
            return
        for receipt in self.receipts():
            name = receipt.params["name"]
            if receipt.state is ReceiptState.VERIFIED:
                assert name in self.outside.on
            if receipt.state in {ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT}:
                assert name not in self.outside.on
            if receipt.captured_ns:
                assert receipt.captured == {"was": False}  # never the effect taken for the state before it

    @invariant()
    def no_effect_without_a_record(self) -> None:
        if hasattr(self, "incident"):
            assert self.outside.on <= {receipt.params["name"] for receipt in self.receipts() if receipt.captured_ns}

    @invariant()
    def no_effect_twice(self) -> None:
        if hasattr(self, "incident"):
            assert self.outside.done["effect"] <= len(self.receipts())

    @invariant()
    def closed_means_settled(self) -> None:
        if hasattr(self, "incident"):
            incident = self.journal.incident(self.incident)
            settled = {ReceiptState.VERIFIED, ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT}
            if incident.status is IncidentStatus.CLOSED and not self.later(incident):
                assert {receipt.state for receipt in incident.receipts} <= settled

    def later(self, incident: Any) -> bool:
        """Something was done after the close, by hand."""
        return any(receipt.intended_ns > incident.closed_ns for receipt in incident.receipts) or any(
            line.at_ns > incident.closed_ns for line in incident.timeline
        )

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.dispose()
            self.folder.cleanup()


Machine.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestInvariants = Machine.TestCase
