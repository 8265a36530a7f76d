"""Issuers' records are in part what an agent wrote: read strictly, bounded, and said where they end."""

from __future__ import annotations

import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clawback.connectors import aws_records, vault_records
from clawback.connectors.aws_records import AwsRecordsConnector
from clawback.connectors.vault_records import VaultRecordsConnector
from clawback.errors import NotFound, Unreachable

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)


# -- CloudTrail, in the form of AWS's user guide ----------------------------------------------------------------------


class Aws:
    """Answers `ask` from pages."""

    is_stand_in = False

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.asked = list(pages), []

    def ask(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        self.asked.append((operation, request))
        if not self.pages:
            return {"Events": []}
        page = self.pages.pop(0)
        if page.get("absent"):
            raise NotFound("no such entity")
        return page

    def inline_policies(self, _principal: str) -> list[str]:
        raise NotFound("no such entity")

    attached = inline_policies


def listed(number: int, **event: Any) -> dict[str, Any]:
    return {
        "EventId": str(number),
        "EventTime": NOW,
        "EventName": event.get("eventName", ""),
        "CloudTrailEvent": json.dumps(event),
    }


ASSUMED = {
    "eventName": "AssumeRole",
    "userIdentity": {
        "type": "AssumedRole",
        "accessKeyId": "ASIAFIRST",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::1:role/first"}},
    },
    "requestParameters": {"roleArn": "arn:aws:iam::1:role/second", "roleSessionName": "s", "durationSeconds": 900},
    "responseElements": {"credentials": {"accessKeyId": "ASIASECOND", "sessionToken": "…"}},
}


def test_a_call_is_read_with_who_made_it_and_what_came_of_it() -> None:
    trail = AwsRecordsConnector(Aws({"Events": [listed(1, **ASSUMED)]}), lag=0).trail_of("ASIAFIRST")  # type: ignore[arg-type]
    (event,) = trail.events
    assert (event.name, event.caller_key, event.issuer) == ("AssumeRole", "ASIAFIRST", "arn:aws:iam::1:role/first")
    assert event.params["roleArn"] == "arn:aws:iam::1:role/second"
    assert event.made["accessKeyId"] == "ASIASECOND"
    assert event.error == ""
    assert trail.cut == ()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '"x"', "null", '{"userIdentity": 7}', '{"requestParameters": [1]}', '{"responseElements": "x"}'],
)
def test_what_is_no_event_breaks_nothing(text: str) -> None:
    event = {"EventId": "1", "EventTime": NOW, "EventName": "X", "CloudTrailEvent": text}
    assert len(AwsRecordsConnector(Aws({"Events": [event]}), lag=0).trail_of("K").events) == 1  # type: ignore[arg-type]


def test_what_the_caller_wrote_is_bounded() -> None:
    params = {f"x{number}": "y" * 100_000 for number in range(500)}
    event = listed(1, eventName="CreateUser", requestParameters=params, userIdentity={"userName": "u" * 5000})
    (read,) = AwsRecordsConnector(Aws({"Events": [event]}), lag=0).trail_of("K").events  # type: ignore[arg-type]
    assert len(read.params) <= 64
    assert max(map(len, read.params.values())) <= 20_480


def test_pages_end_at_a_bound_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_records, "_MAX_EVENTS", 4)
    pages = [{"Events": [listed(2 * n, **ASSUMED), listed(2 * n + 1, **ASSUMED)], "NextToken": "x"} for n in range(9)]
    aws = Aws(*pages)
    trail = AwsRecordsConnector(aws, lag=0).trail_of("K")  # type: ignore[arg-type]
    assert len(trail.events) == 4
    assert "more than 4 CloudTrail events where AccessKeyId is K" in trail.cut[0]


class Newest(Aws):
    """Answers as ministack does: the newest fifty of a window, and no token for more."""

    is_stand_in = True

    def __init__(self, *seconds: int) -> None:
        super().__init__()
        self.events = [(START + timedelta(seconds=second + 0.5), number) for number, second in enumerate(seconds)]

    def ask(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        super().ask(service, operation, **request)
        first, last = request.get("StartTime", START), request.get("EndTime", datetime.now(UTC))
        found = [(at, number) for at, number in self.events if first <= at <= last][-50:]
        return {"Events": [listed(number) | {"EventTime": at} for at, number in reversed(found)]}


START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def test_what_could_not_be_read_is_not_read_again_and_goes_on_being_said() -> None:
    aws = Newest(*[10] * 60, *range(20, 120))
    records = AwsRecordsConnector(aws, lag=0)  # type: ignore[arg-type]
    since = int(START.timestamp()) * 10**9
    first = records.trail(since_ns=since)
    assert any("within a second" in one for one in first.cut)
    assert len(first.events) == 150, "of sixty within a second fifty are given"
    aws.asked.clear()
    aws.events.append((START + timedelta(seconds=130.5), 999))
    again = records.trail(since_ns=since)
    assert len(aws.asked) == 3, "the list was known but for its end"
    assert len(again.events) == 151
    assert (again.cut, again.since_ns) == (first.cut, first.since_ns)
    later = records.trail(since_ns=since + 60 * 10**9)
    assert later.cut == (), "it was before what is wanted now"
    assert len(later.events) == 61


def test_a_list_longer_than_is_kept_grows_no_further_and_says_from_when_it_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aws_records, "_MAX_EVENTS", 60)
    aws = Newest(*range(40))
    records = AwsRecordsConnector(aws, lag=0)  # type: ignore[arg-type]
    assert records.trail_of("K").cut == ()
    aws.events += [(START + timedelta(seconds=second + 0.5), second) for second in range(40, 100)]
    trail = records.trail_of("K")
    assert [event.time_ns // 10**9 - int(START.timestamp()) for event in trail.events] == list(range(40, 100))
    assert "more than 60 CloudTrail events" in trail.cut[0]
    assert trail.since_ns // 10**9 - int(START.timestamp()) == 41
    assert records.trail_of("K").cut == trail.cut
    aws.events += [(START + timedelta(seconds=110.5), 1000 + number) for number in range(55)]
    both = records.trail_of("K").cut
    assert trail.cut[0] in both, "what was left out before goes on being said"
    assert any("within a second" in one for one in both)


def test_it_says_up_to_when_the_record_can_be_complete() -> None:
    trail = AwsRecordsConnector(Aws()).trail(since_ns=time.time_ns())  # type: ignore[arg-type]
    assert "may not yet hold what happened since" in trail.cut[0]


def test_three_questions_find_what_changed_and_what_issued_sessions() -> None:
    aws = Aws()
    AwsRecordsConnector(aws, lag=0).trail(since_ns=time.time_ns())  # type: ignore[arg-type]
    asked = [request["LookupAttributes"][0] for _, request in aws.asked]
    assert [(one["AttributeKey"], one["AttributeValue"]) for one in asked] == [
        ("ReadOnly", "false"),
        ("EventName", "AssumeRole"),
        ("EventName", "GetSessionToken"),
    ]


def test_an_unknown_principal_has_nothing() -> None:
    records = AwsRecordsConnector(Aws(*({"absent": True} for _ in range(4))), lag=0)  # type: ignore[arg-type]
    assert not records.keys("u")
    assert not records.exists("user/u")
    assert not records.inline("role/r")
    assert not records.attached("arn:aws:iam::1:role/path/r")


# -- Vault's audit device ----------------------------------------------------------------------------------------------

ENTRY = {
    "time": "2026-11-28T23:46:27.776981628Z",
    "type": "response",
    "auth": {"accessor": "hmac-sha256:parent"},
    "request": {"client_token_accessor": "hmac-sha256:parent", "path": "auth/token/create", "data": {}},
    "response": {"auth": {"accessor": "hmac-sha256:child"}},
}


def log(folder: Path, *lines: bytes, server: Any = None) -> VaultRecordsConnector:
    file = folder / "audit.log"
    file.write_bytes(b"\n".join(lines) + b"\n")
    return VaultRecordsConnector(server, audit_log=file)


def line(**changes: Any) -> bytes:
    return json.dumps({**ENTRY, **changes}).encode()


def test_what_issued_something_is_read_and_nothing_else(tmp_path: Path) -> None:
    login = {"path": "auth/approle/login", "data": {"secret_id": "hmac-sha256:secret"}}
    lines = [
        line(),
        line(type="request"),
        line(error="permission denied"),
        line(response={"data": {"keys": "x"}}),
        line(request=login),
        line(response={"secret": {"lease_id": "database/creds/x/1"}}),
        line(response={"wrap_info": {"wrapped_accessor": "hmac-sha256:wrapped"}}),
    ]
    found = log(tmp_path, *lines).audit()
    assert found is not None
    one, by_login, lease, wrapped = found.entries
    assert (one.actor_hash, one.token_hash) == ("hmac-sha256:parent", "hmac-sha256:child")
    assert one.time_ns // 1_000_000 == 1795909587776
    assert (by_login.actor_hash, by_login.login_hash) == ("", "hmac-sha256:secret")
    assert lease.lease == "database/creds/x/1"
    assert wrapped.token_hash == "hmac-sha256:wrapped"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b'"response"',
        b"[1]",
        b'{"type": "response", "request": 1}',
        b'{"type": "response", "request": {}, "response": {"auth": []}, "time": "yesterday"}',
        line(response={"auth": {"accessor": 7}}),
        line(response={"auth": {"accessor": "x" * 1000}}),
        line(time="yesterday"),
        b"\xff\xfe" + line(),
        b'{"response": "' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_a_line_that_is_none_is_passed_over(tmp_path: Path, bad: bytes) -> None:
    found = log(tmp_path, bad, line()).audit()
    assert found is not None
    assert len(found.entries) == 1


def test_only_its_end_is_read_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_records, "_MAX_BYTES", 3 * len(line()))
    found = log(tmp_path, *(line() for _ in range(10))).audit()
    assert found is not None
    assert len(found.entries) == 2
    assert "bytes of" in found.cut


def test_what_is_added_is_read_too_half_a_line_when_it_is_whole_and_another_log_anew(tmp_path: Path) -> None:
    records = log(tmp_path, line())
    file = tmp_path / "audit.log"

    def count() -> int:
        found = records.audit()
        assert found is not None
        return len(found.entries)

    assert count() == 1
    half = len(line()) // 2
    with file.open("ab") as more:
        more.write(line() + b"\n" + line()[:half])
    assert count() == 2
    with file.open("ab") as more:
        more.write(line()[half:] + b"\n")
    assert count() == count() == 3
    file.rename(tmp_path / "audit.log.1")
    log(tmp_path, line())
    assert count() == 1
    file.write_bytes(line(time="2026-11-29T00:00:00Z") + b"\n" + line() + b"\n")
    assert count() == 2
    file.write_bytes(b"")
    assert count() == 0


def test_a_log_that_cannot_be_read_is_no_empty_log(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="No such file"):
        VaultRecordsConnector(None, audit_log=tmp_path / "none").audit()  # type: ignore[arg-type]
    assert VaultRecordsConnector(None).audit() is None  # type: ignore[arg-type]


class Device:
    """Answers `ask` for an HMAC as the server does, with a key that a device enabled anew has not."""

    def __init__(self) -> None:
        self.key, self.asked = b"first", 0

    def ask(self, _method: str, path: str, body: dict[str, str]) -> dict[str, Any]:
        assert path == "sys/audit-hash/file"
        self.asked += 1
        return {"data": {"hash": hmac.new(self.key, body["input"].encode(), "sha256").hexdigest()}}


def test_an_hmac_is_asked_for_once_for_as_long_as_the_device_has_the_same_key(tmp_path: Path) -> None:
    device = Device()
    records = log(tmp_path, server=device)

    def walk() -> list[str]:
        records.audit()
        return [records.audit_hash(f"accessor-{number}") for number in range(20)]

    first = walk()
    assert (len(set(first)), device.asked) == (20, 21)
    assert walk() == first
    assert device.asked == 22, "whether the key is the same, and nothing else"
    device.key = b"second"
    changed = walk()
    assert not set(changed) & set(first)
    assert walk() == changed
    device.key = b"first"
    assert walk() == first


def test_what_hashes_are_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_records, "_MAX_HASHES", 5)
    device = Device()
    records = log(tmp_path, server=device)
    for number in range(50):
        assert records.audit_hash(f"{number}") == records.audit_hash(f"{number}")
        assert len(records._hashes[1]) <= 6
