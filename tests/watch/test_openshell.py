"""OpenShell's own lines are replayed as far as they map; what they lack is not made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clawback.detectors.secrets import DETECTOR as SECRETS
from clawback.detectors.unapproved_destination import DETECTOR as UNAPPROVED
from clawback.model import Disposition, HttpActivity, NetworkActivity
from clawback.model.ocsf import Rejected
from clawback.watch.openshell import is_openshell, parse_openshell
from clawback.watch.replay import replay


def line(class_uid: int, **fields: Any) -> bytes:
    body = {
        "class_uid": class_uid,
        "activity_id": 1,
        "type_uid": class_uid * 100 + 1,
        "time": 1_775_014_132_690,
        "severity_id": 3,
        "action_id": 2,
        "disposition_id": 2,
        "message": "DENIED",
        "metadata": {
            "version": "1.7.0",
            "uid": "sb-1",
            "product": {"name": "OpenShell Sandbox Supervisor", "vendor_name": "OpenShell"},
        },
    }
    return json.dumps(body | fields).encode()


NETWORK = line(
    4001,
    dst_endpoint={"domain": "httpbin.org", "port": 443},
    actor={"process": {"name": "/usr/bin/curl", "pid": 64}},
    firewall_rule={"name": "-", "type": "opa"},
)


def test_a_denied_connection() -> None:
    event = parse_openshell(NETWORK, 7)
    assert isinstance(event, NetworkActivity)
    assert (event.host, event.port, event.agent, event.sequence) == ("httpbin.org", 443, "sb-1", 7)
    assert event.disposition is Disposition.BLOCKED
    assert event.time_ns == 1_775_014_132_690_000_000


def test_a_request() -> None:
    url = {"path": "/v1/secret/data/x", "hostname": "vault", "port": 8200}
    event = parse_openshell(line(4002, http_request={"http_method": "POST", "url": url}), 1)
    assert isinstance(event, HttpActivity)
    assert (event.method, event.host, event.port, event.path) == ("POST", "vault", 8200, "/v1/secret/data/x")


@pytest.mark.parametrize("class_uid", [2004, 4007, 6003])
def test_what_has_no_counterpart(class_uid: int) -> None:
    assert parse_openshell(line(class_uid), 1) is None


@pytest.mark.parametrize(
    "bad",
    [
        line(4001, metadata={"uid": "../x", "product": {"name": "OpenShell"}}),
        line(4001, metadata={"uid": "sb", "product": {"name": "Other"}}),
        line(4001, dst_endpoint={"port": -1}),
        line(4001, dst_endpoint={"port": "443"}),
        line(4001, time=-1),
        line(4001, time=2**60),
        b"[]",
    ],
)
def test_what_is_not_sound_is_refused(bad: bytes) -> None:
    with pytest.raises(Rejected):
        parse_openshell(bad, 1)


def test_replay_of_a_mixed_file(tmp_path: Path, tools) -> None:
    path = tmp_path / "x.jsonl"
    tools.append(path, *[NETWORK + b"\n"] * 3, line(4007) + b"\n", tools.harmless(1), tools.harmless(2))
    result = replay([path], (SECRETS, UNAPPROVED))
    assert [(item.detector, item.agent) for item in result.findings] == [("policy.unapproved-destination", "sb-1")]
    assert result.rejected == {"no-counterpart": 1}
    assert (result.events, result.lost) == (5, 0)


def test_an_agent_cannot_pass_its_event_off_as_openshells(tools) -> None:
    from clawback.model.ocsf import encode

    for name in ('"name":"OpenShell', '","product":{"name":"OpenShell"},"x":"'):
        assert not is_openshell(encode(tools.harmless(1, path=name)))
