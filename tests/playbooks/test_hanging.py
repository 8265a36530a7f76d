"""A tracker or a chat that hangs holds up neither containment nor eradication: the order of times in the journal."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from clawback.model import IncidentStatus, Level, NetworkActivity, Phase, PolicyChange, Receipt, ReceiptState
from clawback.world.notices import Delivery, Outcome

from .test_others import Case

pytestmark = pytest.mark.slow

_MOST_SECONDS = 10  # a server's own limit, in case nothing is done meanwhile


class Chat:
    """One channel, which answers when it is let."""

    def __init__(self, over: threading.Event) -> None:
        self.over = over

    def channels(self) -> dict[str, str]:
        return {"soc": "slack"}

    def send(self, notice: Any, *, key: str, channels: tuple[str, ...]) -> dict[str, Delivery]:
        self.over.wait(_MOST_SECONDS)
        return {name: Delivery(outcome=Outcome.DELIVERED, answer="ok") for name in channels}


@pytest.fixture
def hung(there: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracker and chat hang until the agent is let go, which is after eradication."""
    over = threading.Event()
    write = there.tickets.write

    def slowly(incident: str, **texts: str) -> Any:
        over.wait(_MOST_SECONDS)
        return write(incident, **texts)

    def let_go(call: str) -> None:
        if call == "release":
            over.set()

    monkeypatch.setattr(there.tickets, "write", slowly)
    monkeypatch.setattr(there, "world", replace(there.world, notifier_or_none=Chat(over)))
    monkeypatch.setattr(there.core, "before_call", let_go)


def settled(case: Case, *phases: Phase) -> list[Receipt]:
    return [
        x
        for x in case.journal.incident(case.id).receipts
        if x.phase in phases and x.action not in ("ticket.write", "notify.send")
    ]


@pytest.mark.parametrize(
    "detector",
    ["secrets.outside-allow-list", "credentials.misused", "exfiltration.new-destination", "tools.new-call"],
)
def test_credentials_are_closed_before_the_hanging_call_ends(
    journal: Any, there: Any, hung: None, detector: str
) -> None:
    case = Case(journal, there).found(detector, reflex=Level.ISOLATE)
    ended = case.run()
    assert ended.status is IncidentStatus.CLOSED, [(x.action, x.proof) for x in ended.receipts if not x.state.settled]
    told = [*case.receipts("ticket.write")[:1], *case.receipts("notify.send")[:1]]
    assert [x.params["stage"] for x in told] == ["opened", "opened"]
    done = settled(case, Phase.CONTAIN, Phase.ERADICATE)
    assert {"agent.isolate", "vault.rotate-token", "credential.confirm-closed", "policy.restore"} <= {
        x.action for x in done
    }
    for slow in told:
        assert [x.action for x in done if x.verified_ns > slow.applied_ns] == []


def test_who_used_a_wide_policy_is_held_before_the_hanging_call_ends(
    journal: Any, there: Any, hung: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clawback.actions.policy_impact.SETTLED_NS", 0)
    case = Case(journal, there)
    there.telemetry.add(PolicyChange, agent="", instance="", author="dev", widened=("allow partner: *.partner.test",))
    there.telemetry.add(NetworkActivity, activity_id=1, host="x.partner.test", port=443, rule="partner")
    case.found("policy.widened", agent="policy:support", instance="policy:support").run()
    opened = case.receipts("ticket.write")[0]
    done = settled(case, Phase.CONTAIN, Phase.ERADICATE)
    assert [(x.action, x.state) for x in done][:2] == [
        ("agent.freeze", ReceiptState.VERIFIED),
        ("agent.isolate", ReceiptState.VERIFIED),
    ]
    assert [x.action for x in done if x.verified_ns > opened.applied_ns] == []
