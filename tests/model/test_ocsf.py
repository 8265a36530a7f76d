"""Events survive the trip through OCSF exactly; whatever is off is refused with a reason, never with a crash."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.errors import InvalidInput
from clawback.model import (
    CredentialUse,
    Disposition,
    Event,
    ExternalAlert,
    FileActivity,
    HttpActivity,
    KernelActivity,
    Lifecycle,
    NetworkActivity,
    PolicyChange,
    ProcessActivity,
    RouteActivity,
    Sensitivity,
    Severity,
    Source,
)
from clawback.model.ocsf import LINE_LIMIT, PATH_LIMIT, TEXT_LIMIT, Rejected, encode, parse_line, to_ocsf

NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,30}", fullmatch=True)
PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
WILD = st.text(st.characters(), max_size=60)
PIDS = st.integers(0, 2**31)
BYTES = st.integers(0, 2**63 - 1)
WORDS = st.integers(0, 2**64 - 1)
STREAM = {
    FileActivity: Source.SANDBOX,
    KernelActivity: Source.SANDBOX,
    ProcessActivity: Source.SANDBOX,
    NetworkActivity: Source.POLICY,
    HttpActivity: Source.POLICY,
    PolicyChange: Source.POLICY,
    Lifecycle: Source.SANDBOX,
    RouteActivity: Source.ROUTING,
    ExternalAlert: Source.EXTERNAL,
    CredentialUse: Source.EXTERNAL,
}
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "pid": PIDS,
    "parent_pid": PIDS,
    "number": st.integers(-(2**31), 2**31),
    "arguments": st.just(()) | st.tuples(*[WORDS] * 6),
    "address": WORDS,
    "novel": st.booleans(),
    "exit_code": st.none() | st.integers(-255, 255),
    "port": st.integers(0, 65_535),
    "status": st.integers(0, 999),
    "bytes_in": BYTES,
    "bytes_out": BYTES,
    "lost": BYTES,
    "violations": BYTES,
    "decisions": BYTES,
    "slow": BYTES,
    "p99_ms": st.floats(0, 1e9),
    "elsewhere": st.booleans(),
    "canary": st.booleans(),
    "previous_version": BYTES,
    "sensitivity": st.sampled_from(Sensitivity),
    "destination": st.sampled_from(["local", "cloud"]),
    "confidence": st.floats(0, 1),
}


def events(text: st.SearchStrategy[str]) -> st.SearchStrategy[Event]:
    shared: dict[str, st.SearchStrategy[Any]] = {
        "time_ns": st.integers(0, 2**63 - 1),
        "writer": NAME,
        "sequence": st.integers(1, 2**63 - 1),
        "activity_id": st.integers(0, 99),
        "severity": st.sampled_from(Severity),
        "disposition": st.sampled_from(Disposition),
        "policy_version": st.integers(0, 2**62),
    }

    def of(kind: type[Event]) -> st.SearchStrategy[Event]:
        own: dict[str, st.SearchStrategy[Any]] = dict(shared)
        for field in fields(kind):
            if field.name in own or field.name in {"agent", "instance", "source"}:
                continue
            if kind is Lifecycle and field.name == "status":
                own[field.name] = text
            elif field.name in {"data_types", "calls", "widened", "attack"}:
                own[field.name] = st.lists(text, max_size=5).map(tuple)
            else:
                own[field.name] = SPECIAL.get(field.name, text)
        plain = st.builds(kind, source=st.just(STREAM[kind]), **own)
        owned = st.builds(kind, source=st.just(STREAM[kind]), agent=NAME, instance=NAME, **own)
        return plain | owned

    return st.one_of([of(kind) for kind in STREAM])


def file_event(**changes: Any) -> FileActivity:
    known: dict[str, Any] = {
        "time_ns": 1_700_000_000_123_456_789,
        "writer": "w1",
        "sequence": 1,
        "source": Source.SANDBOX,
        "agent": "support",
        "instance": "support-1",
        "activity_id": FileActivity.OPEN,
        "path": "/etc/hostname",
    }
    return FileActivity(**(known | changes))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(events(PLAIN))
def test_reading_returns_exactly_what_was_written(event: Event) -> None:
    line = encode(event)
    assert line.count(b"\n") == 1
    assert parse_line(line[:-1], event.source) == event


@settings(max_examples=200, deadline=None)
@given(events(WILD))
def test_any_event_can_be_written_and_settles_after_one_trip(event: Event) -> None:
    once = parse_line(encode(event)[:-1], None)
    assert parse_line(encode(once)[:-1], None) == once
    assert (once.agent, once.instance, once.sequence) == (event.agent, event.instance, event.sequence)


@pytest.mark.parametrize("letter", ["a", "é", "\x00", "\U0001f512", "\udc80", '"'])
def test_long_strings_are_cut_and_never_make_the_line_too_long(letter: str) -> None:
    event = file_event(path=letter * 200_000, exe=letter * 200_000, message=letter * 200_000, access=letter * 9_000)
    line = encode(event)
    assert len(line) <= LINE_LIMIT
    read = parse_line(line[:-1], Source.SANDBOX)
    assert isinstance(read, FileActivity)
    assert len(read.path) == PATH_LIMIT
    assert len(read.message) == TEXT_LIMIT
    assert read.path.endswith("…")


def test_the_ocsf_fields_are_where_a_siem_looks_for_them() -> None:
    body = to_ocsf(
        HttpActivity(
            time_ns=1_700_000_000_123_456_789,
            writer="w",
            sequence=7,
            source=Source.POLICY,
            agent="support",
            instance="support-1",
            activity_id=6,
            disposition=Disposition.BLOCKED,
            policy="support",
            policy_version=3,
            method="POST",
            host="10.0.0.1",
            port=443,
            path="/x",
            status=403,
            rule="deny-all",
            reason="no rule",
        )
    )
    assert (body["class_uid"], body["category_uid"], body["type_uid"]) == (4002, 4, 400206)
    assert (body["time"], body["disposition_id"], body["action_id"]) == (1_700_000_000_123, 2, 2)
    assert body["metadata"]["uid"] == "support-1"
    assert body["dst_endpoint"] == {"ip": "10.0.0.1", "port": 443}
    assert body["policy"] == {"name": "support", "version": "3"}
    assert body["firewall_rule"] == {"name": "deny-all"}
    assert body["http_request"]["http_method"] == "POST"


def changed(path: str, value: Any) -> bytes:
    body = json.loads(encode(file_event()))
    *parents, last = path.split(".")
    target = body
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(body).encode()


GOOD = encode(file_event())[:-1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not-json"),
        (b"null", "not-json"),
        (b"[]", "not-json"),
        (GOOD[:-1], "not-json"),
        (GOOD + b"{}", "not-json"),
        (GOOD.replace(b'"message"', b'"\xff"').replace(b"support", b"\xff\xfe", 1), "not-utf-8"),
        (b"\xef\xbb\xbf" + GOOD, "not-json"),
        (b'{"a":NaN}', "not-json"),
        (b'{"a":-Infinity}', "not-json"),
        (b'{"a":' + b"1" * 5000 + b"}", "not-json"),
        (GOOD.replace(b'{"class_uid":1001', b'{"class_uid":1001,"class_uid":1001'), "duplicate-key"),
        (b"[" * 60_000, "too-deep"),
        (b'{"a":' * 10_000, "too-deep"),
        (b" " * (LINE_LIMIT + 1), "too-long"),
        (changed("class_uid", 9999), "class"),
        (changed("class_uid", True), "type"),
        (changed("class_uid", "1001"), "type"),
        (changed("class_uid", 4002), "class"),
        (changed("type_uid", 100115), "class"),
        (changed("category_uid", 4), "class"),
        (changed("activity_id", -1), "range"),
        (changed("activity_id", 1e2), "type"),
        (changed("time", 1), "time"),
        (changed("unmapped.time_ns", -5), "range"),
        (changed("unmapped.time_ns", 2**63), "range"),
        (changed("severity_id", 7), "range"),
        (changed("disposition_id", 3), "range"),
        (changed("action_id", 2), "range"),
        (changed("metadata", []), "type"),
        (changed("metadata.log_name", "policy"), "stream"),
        (changed("metadata.log_name", "…"), "stream"),
        (changed("metadata.sequence", 0), "range"),
        (changed("metadata.sequence", -1), "range"),
        (changed("metadata.sequence", None), "type"),
        (changed("metadata.log_provider", ""), "identity"),
        (changed("metadata.log_provider", "a/../b"), "identity"),
        (changed("metadata.uid", ""), "identity"),
        (changed("unmapped.agent", ""), "identity"),
        (changed("unmapped.agent", "../etc"), "identity"),
        (changed("unmapped.agent", "a\nb"), "identity"),
        (changed("unmapped.agent", ["support"]), "type"),
        (changed("unmapped", ...), "type"),
        (changed("file", "x"), "type"),
        (changed("file.path", 3), "type"),
        (changed("file.path", "/\ud800"), "not-utf-8"),
        (changed("actor.process.pid", -1), "range"),
        (changed("actor.process.pid", 2**40), "range"),
        (changed("policy", {"name": "p", "version": "²"}), "type"),
        (changed("policy", {"name": "p", "version": "-1"}), "type"),
    ],
)
def test_what_is_off_is_refused_with_its_reason(line: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_line(line, Source.SANDBOX)
    assert caught.value.reason == reason
    assert isinstance(caught.value, InvalidInput)
    assert len(caught.value.message) < 200


def test_a_class_in_a_stream_that_never_carries_it_is_refused() -> None:
    line = encode(file_event(source=Source.POLICY))[:-1]
    with pytest.raises(Rejected, match="does not belong"):
        parse_line(line, Source.POLICY)


def route(**changes: Any) -> bytes:
    event = RouteActivity(
        time_ns=1,
        writer="w",
        sequence=1,
        source=Source.ROUTING,
        model="m",
        endpoint="e",
        destination="cloud",
        sensitivity=Sensitivity.RESTRICTED,
    )
    body = to_ocsf(event)
    body["unmapped"]["route"].update(changes)
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence": 1.5},
        {"confidence": -0.1},
        {"confidence": True},
        {"confidence": "1"},
        {"data_types": "ssn"},
        {"data_types": [1]},
        {"data_types": ["x"] * 1000},
        {"sensitivity": "secret"},
        {"destination": "moon"},
    ],
)
def test_a_route_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        parse_line(route(**changes), Source.ROUTING)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(line: bytes) -> None:
    with pytest.raises(Rejected):
        parse_line(line, None)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_damage_to_a_line_crashes_the_reader_or_changes_its_agent(data: st.DataObject) -> None:
    body = json.loads(GOOD)
    flat = [("",), *[(key,) for key in body], *[(k, j) for k, v in body.items() if isinstance(v, dict) for j in v]]
    where = data.draw(st.sampled_from(flat[1:]))
    junk = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=4,
        )
    )
    target = body if len(where) == 1 else body[where[0]]
    target[where[-1]] = junk
    try:
        event = parse_line(json.dumps(body).encode(), Source.SANDBOX)
    except Rejected:
        return
    assert isinstance(event, FileActivity)
    if where != ("unmapped", "agent"):
        assert event.agent == "support"


def denial(**extra: Any) -> bytes:
    event = KernelActivity(
        time_ns=1_700_000_000_123_456_789,
        writer="w1",
        sequence=1,
        source=Source.SANDBOX,
        agent="support",
        instance="support-1",
        activity_id=KernelActivity.INVOKE,
        syscall="ptrace",
        arguments=(2**64 - 1, -1, 2**64, 0, 1, 2, 3),
    )
    body = to_ocsf(event)
    body["unmapped"].update(extra)
    return json.dumps(body).encode()


def test_registers_are_64_bits_and_six() -> None:
    read = parse_line(denial(), Source.SANDBOX)
    assert isinstance(read, KernelActivity)
    assert read.arguments == (2**64 - 1, 2**64 - 1, 0, 0, 1, 2)


@pytest.mark.parametrize("bad", [["0x1"] * 7, [1], ["1"], ["0x" + "f" * 17], ["0xG"], "0x1", {"a": 1}])
def test_other_registers_are_refused(bad: Any) -> None:
    with pytest.raises(Rejected):
        parse_line(denial(arguments=bad), Source.SANDBOX)


def test_a_line_from_before_registers_were_written_is_read() -> None:
    body = json.loads(denial())
    for key in ("arguments", "address", "architecture", "comm", "novel"):
        del body["unmapped"][key]
    read = parse_line(json.dumps(body).encode(), Source.SANDBOX)
    assert isinstance(read, KernelActivity)
    assert (read.arguments, read.address) == ((), 0)
