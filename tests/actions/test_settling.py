"""What an issuer may still honour is waited for, and no longer, whatever the clock says."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from clawback.actions import credential_confirm_closed
from clawback.model import Phase

SETTLE = 10.0


@pytest.mark.parametrize(
    ("ago", "least", "most"),
    [(3.0, 6.0, 7.0), (60.0, 0.0, 0.0), (-3600.0, SETTLE, SETTLE)],
    ids=["lately", "long", "set back"],
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
    assert apply(context, credential_confirm_closed.ConfirmParams(agent="a"), {}) == {}
    assert least <= sum(slept) <= most
