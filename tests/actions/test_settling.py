"""What an issuer may still honour is waited for, and no longer, whatever the clock says."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from clawback.actions import credential_confirm_closed
from clawback.model import CredentialGraph, Phase

SETTLE = 10.0
YEAR_NS = 365 * 86_400 * 1_000_000_000


@pytest.mark.parametrize(
    ("ago", "least", "most"),
    [(3.0, 6.0, 7.0), (60.0, 0.0, 0.0), (-3600.0, SETTLE - 1, SETTLE)],
    ids=["lately", "long", "of a time to come"],
)
def test_the_settling_is_waited_for(monkeypatch: pytest.MonkeyPatch, ago: float, least: float, most: float) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(credential_confirm_closed, "trace", lambda *_: SimpleNamespace(as_record=dict))
    closing: Any = SimpleNamespace(
        action="aws.rotate-key", phase=Phase.ERADICATE, applied_ns=time.time_ns() - round(ago * 1e9)
    )
    context: Any = SimpleNamespace(
        incident=SimpleNamespace(receipts=(closing,)),
        world=SimpleNamespace(cloud_or_none=True, cloud=SimpleNamespace(settle=SETTLE)),
    )
    apply = credential_confirm_closed.ACTION.apply
    outcome = apply(context, credential_confirm_closed.ConfirmParams(agent="a"), {})
    assert outcome["last_closing"][0] == closing.applied_ns
    assert outcome["last_closing"][1] <= time.time_ns()
    assert least <= sum(slept) <= most


@pytest.mark.parametrize("before", ["nothing", "a walk by the wrong clock"])
def test_a_closing_of_a_time_to_come_waits_for_a_record_of_when_it_was_first_seen(
    monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A clock a year ahead would else keep it open for a year: no record is complete up to then."""
    until = [0]
    monkeypatch.setattr(credential_confirm_closed, "trace", lambda *_: CredentialGraph(nodes=(), until_ns=until[0]))
    stamped = time.time_ns() + YEAR_NS
    closing: Any = SimpleNamespace(action="aws.rotate-key", phase=Phase.ERADICATE, applied_ns=stamped)
    own: Any = SimpleNamespace(
        action="credential.confirm-closed",
        phase=Phase.ERADICATE,
        params={"agent": "a"},
        applied_ns=0,
        outcome={"last_closing": [stamped, stamped + 1]} if before != "nothing" else {},
    )
    context: Any = SimpleNamespace(
        incident=SimpleNamespace(receipts=(closing, own)), world=SimpleNamespace(cloud_or_none=None)
    )
    action, params = credential_confirm_closed.ACTION, credential_confirm_closed.ConfirmParams(agent="a")
    first = action.apply(context, params, {})
    seen = first["last_closing"][1]
    assert seen <= time.time_ns()
    until[0] = seen - 1
    early = action.verify(context, params, {}, first)
    assert not early.verified
    assert "not complete up to the last closing" in early.proof
    own.outcome = first
    again = action.apply(context, params, {})
    assert again["last_closing"] == first["last_closing"], "else it would run ahead of every record"
    until[0] = seen
    assert action.verify(context, params, {}, again).verified
