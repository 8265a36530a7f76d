"""Alerts of other products and issuers' records reach the agents that they concern, and nobody else."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from clawback.model import AgentInfo, AgentState, CredentialRef, CredentialUse, ExternalAlert, Severity, Source
from clawback.model.ocsf import parse_line
from clawback.watch.ingest import Ingest, Ingested

KEY = CredentialRef(kind="aws-access-key", name="aws-key", identifiers={"user": "u", "access_key_id": "AKIA1"})


def agent(name: str, *tags: str, credentials: tuple[CredentialRef, ...] = ()) -> AgentInfo:
    return AgentInfo(
        agent=name,
        instance=f"{name}-1",
        state=AgentState.RUNNING,
        pid=1,
        command=("x",),
        policy="p",
        policy_version=3,
        started_ns=1,
        tags=tags,
        credentials=credentials,
    )


AGENTS = (agent("ann-1", "user=ann"), agent("web-1", "host=ws-7"), agent("other-1", credentials=(KEY,)))


@pytest.fixture
def take(tmp_path: Path) -> Any:
    def of(*lines: Any, own: tuple[str, ...] = ()) -> tuple[Ingested, list[Any]]:
        taking = Ingest(tmp_path, AGENTS, own_addresses=own)
        result = taking.take([x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines], "in")
        taking.close()
        written = (tmp_path / "external.jsonl").read_bytes().splitlines()
        return result, [parse_line(line, Source.EXTERNAL) for line in written]

    return of


def alert(**more: Any) -> dict[str, Any]:
    return {
        "class_uid": 2004,
        "time": 1_760_000_000_000,
        "severity_id": 4,
        "finding_info": {"title": "LSASS read", "uid": "A-1", "attacks": [{"technique": {"uid": "T1003.001"}}]},
        "metadata": {"product": {"name": "EDR"}},
        **more,
    }


@pytest.mark.parametrize(
    ("more", "about"),
    [
        ({"actor": {"user": {"name": "Ann"}}}, ("ann-1",)),
        ({"device": {"hostname": "WS-7"}}, ("web-1",)),
        ({"unmapped": {"agent": "other-1"}, "device": {"hostname": "ws-7"}}, ("other-1",)),
        ({"device": {"hostname": f"{socket.gethostname()}.example.org"}}, ("ann-1", "web-1", "other-1")),
        ({"device": {"hostname": "elsewhere"}}, ()),
        ({}, ()),
    ],
)
def test_whom_an_alert_concerns(take: Any, more: dict[str, Any], about: tuple[str, ...]) -> None:
    result, events = take(alert(**more))
    assert result.agents == about
    assert result.unrelated == (not about)
    for event in events:
        assert isinstance(event, ExternalAlert)
        assert (event.product, event.alert, event.attack) == ("EDR", "A-1", ("T1003.001",))
        assert event.severity is Severity.HIGH
        assert event.time_ns == 1_760_000_000 * 10**9


def use(**more: Any) -> dict[str, Any]:
    known = {"class_uid": 3002, "time": 1_760_000_000_000, "user": {"credential_uid": "AKIA1"}}
    return {**known, "src_endpoint": {"ip": "203.0.113.9"}, "service": {"name": "aws"}, **more}


def test_a_use_from_elsewhere_is_told_by_our_own_addresses(take: Any) -> None:
    _, [event] = take(use(status_id=2), own=("198.51.100.1",))
    assert isinstance(event, CredentialUse)
    assert (event.agent, event.credential, event.origin, event.elsewhere) == (
        "other-1",
        "aws-key",
        "203.0.113.9",
        True,
    )
    assert event.blocked


def test_without_our_own_addresses_nothing_is_elsewhere(take: Any) -> None:
    _, [event] = take(use())
    assert not event.elsewhere


def test_our_own_address_is_not_elsewhere_and_another_key_is_nobodys(take: Any) -> None:
    result, [event] = take(use(), use(user={"credential_uid": "AKIA2"}), own=("203.0.113.9",))
    assert not event.elsewhere
    assert result.unrelated == 1


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b'{"class_uid": 1001}', b'{"class_uid": 2004}', b'{"class_uid": 3002}', b"\xff", b"{" * 70_000],
)
def test_what_is_no_such_event_is_refused_by_its_line_and_the_rest_is_taken(take: Any, line: bytes) -> None:
    result, events = take(line, alert(unmapped={"agent": "ann-1"}))
    assert len(events) == 1
    assert result.refused[0].startswith("in:1: ")


def test_wrong_types_inside_are_no_crash(take: Any) -> None:
    wild = alert(actor=7, device=["x"], severity_id="high", time=None, unmapped={"agent": ["a"]})
    wild["finding_info"]["attacks"] = [3, {"technique": 4}]
    result, _ = take(wild)
    assert result.refused == ()
