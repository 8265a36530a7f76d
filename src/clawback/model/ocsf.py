"""Events as OCSF 1.7 JSON lines, and back: `to_ocsf` and `encode` write, `parse_line` reads and refuses what is off.

A line is at most 64 KiB. Strings are bounded where they are written, and again where they are read, by cutting and
never by dropping the event: an agent that makes a path long must not thereby hide what it did. Control characters are
data and stay as they are; whoever shows them escapes them. Within the bounds, reading returns exactly what was written.

OCSF has no place for some fields; those are under `unmapped`: the agent, nanoseconds, and what a class lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from clawback.errors import InvalidInput
from clawback.model.events import (
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

__all__ = ["LINE_LIMIT", "PATH_LIMIT", "TEXT_LIMIT", "Rejected", "encode", "load", "parse_line", "to_ocsf"]

LINE_LIMIT = 64 * 1024  # bytes, without the newline
PATH_LIMIT = 4096  # characters; PATH_MAX, for file and URL paths and command lines
TEXT_LIMIT = 1024  # characters of any other string
LIST_LIMIT = 32  # entries of `data_types`, `widened`, `attack`
CALLS_LIMIT = 16  # entries of `calls`
ENTRY_LIMIT = 128  # characters of an entry of any of these
ARGUMENTS = 6  # registers that a system call takes

_INT_MAX = 2**63 - 1
_WORD = 2**64 - 1
_REGISTER = re.compile(r"0x[0-9a-f]{1,16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_PRODUCT = {"name": "Clawback", "vendor_name": "Clawback"}
_ACTION_OF = {Disposition.UNKNOWN: 0, Disposition.ALLOWED: 1, Disposition.BLOCKED: 2, Disposition.LOGGED: 3}
_DISPOSITIONS = {int(item): item for item in Disposition}
_SEVERITIES = {int(item): item for item in Severity}
_SOURCES = {str(item): item for item in Source}
_SENSITIVITIES = {str(item): item for item in Sensitivity}

Json = dict[str, Any]


class Rejected(InvalidInput):
    """A line that is no event of ours. `reason` is a short fixed word, fit to be counted by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, hint="the line was skipped; perhaps another writer made it")
        self.reason = reason


# Writing ------------------------------------------------------------


def _cut(text: str, limit: int = TEXT_LIMIT) -> str:
    """The text as UTF-8 can carry it (file names may not be), at most `limit` characters, `…` where it was cut."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _cut_each(texts: tuple[str, ...], most: int) -> list[str]:
    return [_cut(text, ENTRY_LIMIT) for text in texts[:most]]


def _endpoint(host: str, port: int) -> Json:
    # OCSF keeps names and addresses apart; no name has a colon or is all digits and dots.
    key = "ip" if ":" in host or (host and not host.strip("0123456789.")) else "domain"
    return {key: _cut(host), "port": port}


def _actor(pid: int, exe: str) -> Json:
    return {"process": {"pid": pid, "file": {"path": _cut(exe)}}}


def _put_file(event: Any, body: Json) -> None:
    body["file"] = {"path": _cut(event.path, PATH_LIMIT), "type_id": 0}
    body["actor"] = _actor(event.pid, event.exe)
    body["unmapped"]["access"] = _cut(event.access)


def _put_kernel(event: Any, body: Json) -> None:
    name = _cut(event.syscall)
    body["kernel"] = {"name": name, "type_id": 2, "system_call": name}
    body["actor"] = _actor(event.pid, event.exe)
    extra = body["unmapped"]
    extra["number"] = event.number
    # JSON's numbers are exact to 53 bits in many readers; registers have 64.
    extra["arguments"] = [f"{value & _WORD:#x}" for value in event.arguments[:ARGUMENTS]]
    extra["address"] = f"{event.address & _WORD:#x}"
    extra["architecture"], extra["comm"] = _cut(event.architecture), _cut(event.comm, 64)
    extra["novel"] = event.novel


def _put_process(event: Any, body: Json) -> None:
    body["process"] = {
        "pid": event.pid,
        "cmd_line": _cut(event.command, PATH_LIMIT),
        "file": {"path": _cut(event.exe)},
        "parent_process": {"pid": event.parent_pid},
    }
    if event.exit_code is not None:
        body["exit_code"] = event.exit_code


def _put_flow(event: Any, body: Json) -> None:
    body["dst_endpoint"] = _endpoint(event.host, event.port)
    body["connection_info"] = {"uid": _cut(event.connection), "direction_id": 2}
    body["traffic"] = {"bytes_in": event.bytes_in, "bytes_out": event.bytes_out}
    if event.rule:
        body["firewall_rule"] = {"name": _cut(event.rule)}
    if event.reason:
        body["status_detail"] = _cut(event.reason)


def _put_http(event: Any, body: Json) -> None:
    _put_flow(event, body)
    body["http_request"] = {"http_method": _cut(event.method), "url": {"path": _cut(event.path, PATH_LIMIT)}}
    body["http_response"] = {"code": event.status}
    if event.calls:
        body["unmapped"]["calls"] = _cut_each(event.calls, CALLS_LIMIT)


def _put_change(event: Any, body: Json) -> None:
    body["actor"] = {"user": {"name": _cut(event.author)}}
    body["status_detail"] = _cut(event.reason)
    body["unmapped"]["previous_version"] = event.previous_version
    body["unmapped"]["sha256"] = _cut(event.sha256)
    if event.widened:
        body["unmapped"]["widened"] = _cut_each(event.widened, LIST_LIMIT)


def _put_lifecycle(event: Any, body: Json) -> None:
    body["app"] = {"name": _cut(event.component), "vendor_name": "Clawback"}
    body["status_detail"] = _cut(event.status)
    body["unmapped"]["lost"] = event.lost
    body["unmapped"]["violations"] = event.violations
    if event.decisions or event.slow or event.p99_ms:
        body["unmapped"]["decided"] = {"decisions": event.decisions, "slow": event.slow, "p99_ms": event.p99_ms}


def _put_route(event: Any, body: Json) -> None:
    body["api"] = {"operation": "route", "service": {"name": _cut(event.model)}}
    body["unmapped"]["route"] = {
        "endpoint": _cut(event.endpoint),
        "destination": _cut(event.destination),
        "sensitivity": str(event.sensitivity),
        "confidence": event.confidence,
        "data_types": _cut_each(event.data_types, LIST_LIMIT),
    }


def _put_alert(event: Any, body: Json) -> None:
    body["finding_info"] = {
        "title": _cut(event.title),
        "uid": _cut(event.alert),
        "attacks": [{"technique": {"uid": item}} for item in _cut_each(event.attack, LIST_LIMIT)],
        "product": {"name": _cut(event.product)},
    }
    body["device"] = {"hostname": _cut(event.host)}
    body["actor"] = {"user": {"name": _cut(event.user)}}


def _put_use(event: Any, body: Json) -> None:
    body["service"] = {"name": _cut(event.issuer)}
    body["src_endpoint"] = {"ip": _cut(event.origin)}
    body["unmapped"]["credential"] = {
        "name": _cut(event.credential, 256),
        "operation": _cut(event.operation),
        "elsewhere": event.elsewhere,
        "canary": event.canary,
    }


def to_ocsf(event: Event) -> Json:
    """The event as an OCSF object, its strings within bounds. Any event of the model has one."""
    class_uid = event.class_uid
    body: Json = {
        "class_uid": class_uid,
        "category_uid": class_uid // 1000,
        "activity_id": event.activity_id,
        "type_uid": class_uid * 100 + event.activity_id,
        "time": event.time_ns // 1_000_000,
        "severity_id": int(event.severity),
        "disposition_id": int(event.disposition),
        "action_id": _ACTION_OF[event.disposition],
        "metadata": {
            "version": "1.7.0",
            "product": _PRODUCT,
            "uid": event.instance,
            "log_name": str(event.source),
            "log_provider": event.writer,
            "sequence": event.sequence,
        },
        "unmapped": {"agent": event.agent, "time_ns": event.time_ns},
    }
    if event.message:
        body["message"] = _cut(event.message)
    if event.policy or event.policy_version:
        body["policy"] = {"name": _cut(event.policy), "version": str(event.policy_version)}
    _CLASSES[class_uid][1](event, body)
    return body


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False).encode


def encode(event: Event) -> bytes:
    """The event as one line with its newline, ready to be appended in a single write."""
    return _encode(to_ocsf(event)).encode("utf-8") + b"\n"


# Reading ------------------------------------------------------------


def _reject_type(key: str) -> NoReturn:
    raise Rejected("type", f"{key}: missing or of the wrong type")


def _text(container: Json, key: str, limit: int = TEXT_LIMIT) -> str:
    value = container.get(key, "")
    if type(value) is not str:
        _reject_type(key)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # half a surrogate pair: neither a database nor a terminal takes it
            raise Rejected("not-utf-8", f"{key}: not Unicode text") from None
    return value if len(value) <= limit else value[: limit - 1] + "…"


def _int(container: Json, key: str, high: int = _INT_MAX, low: int = 0) -> int:
    value = container.get(key)
    if type(value) is not int:  # bool is an int to isinstance
        _reject_type(key)
    if not low <= value <= high:
        raise Rejected("range", f"{key}: outside {low} … {high}")
    return value


def _flag(container: Json, key: str) -> bool:
    value = container.get(key, False)
    if type(value) is not bool:
        _reject_type(key)
    return value


def _texts(container: Json, key: str, most: int) -> tuple[str, ...]:
    """A list of strings; none where it is not there."""
    values = container.get(key, [])
    if type(values) is not list or len(values) > most:
        _reject_type(key)
    return tuple(_text({key: item}, key, ENTRY_LIMIT) for item in values)


def _number(container: Json, key: str) -> float:
    value = container.get(key)
    if (type(value) is not float and type(value) is not int) or not 0 <= value <= _INT_MAX:
        raise Rejected("range", f"{key}: not a number from 0")
    return float(value)


def _register(value: object, key: str) -> int:
    if type(value) is not str or not _REGISTER.fullmatch(value):
        _reject_type(key)
    return int(value, 16)


def _object(container: Json, key: str) -> Json:
    value = container.get(key)
    if type(value) is not dict:
        _reject_type(key)
    return value


def _get_actor(body: Json) -> Json:
    process = _object(_object(body, "actor"), "process")
    return {"pid": _int(process, "pid", 2**31), "exe": _text(_object(process, "file"), "path")}


def _get_file(body: Json, extra: Json) -> Json:
    path = _text(_object(body, "file"), "path", PATH_LIMIT)
    return {"path": path, "access": _text(extra, "access"), **_get_actor(body)}


def _get_kernel(body: Json, extra: Json) -> Json:
    arguments = extra.get("arguments", [])
    if type(arguments) is not list or len(arguments) > ARGUMENTS:
        _reject_type("arguments")
    return {
        "syscall": _text(_object(body, "kernel"), "system_call"),
        "number": _int(extra, "number", 2**32, -(2**31)),
        "architecture": _text(extra, "architecture"),
        "arguments": tuple(_register(item, "arguments") for item in arguments),
        "address": _register(extra.get("address", "0x0"), "address"),
        "comm": _text(extra, "comm", 64),
        "novel": _flag(extra, "novel"),
        **_get_actor(body),
    }


def _get_process(body: Json, _extra: Json) -> Json:
    process = _object(body, "process")
    return {
        "pid": _int(process, "pid", 2**31),
        "parent_pid": _int(_object(process, "parent_process"), "pid", 2**31),
        "exe": _text(_object(process, "file"), "path"),
        "command": _text(process, "cmd_line", PATH_LIMIT),
        "exit_code": _int(body, "exit_code", 2**31, -(2**31)) if "exit_code" in body else None,
    }


def _get_flow(body: Json, _extra: Json) -> Json:
    endpoint = _object(body, "dst_endpoint")
    if ("ip" in endpoint) == ("domain" in endpoint):
        raise Rejected("type", "dst_endpoint: needs either ip or domain")
    traffic = _object(body, "traffic")
    return {
        "host": _text(endpoint, "ip" if "ip" in endpoint else "domain"),
        "port": _int(endpoint, "port", 65_535),
        "connection": _text(_object(body, "connection_info"), "uid"),
        "bytes_out": _int(traffic, "bytes_out"),
        "bytes_in": _int(traffic, "bytes_in"),
        "rule": _text(_object(body, "firewall_rule"), "name") if "firewall_rule" in body else "",
        "reason": _text(body, "status_detail"),
    }


def _get_http(body: Json, extra: Json) -> Json:
    request = _object(body, "http_request")
    return {
        "calls": _texts(extra, "calls", CALLS_LIMIT),
        "method": _text(request, "http_method"),
        "path": _text(_object(request, "url"), "path", PATH_LIMIT),
        "status": _int(_object(body, "http_response"), "code", 999),
        **_get_flow(body, extra),
    }


def _get_change(body: Json, extra: Json) -> Json:
    return {
        "author": _text(_object(_object(body, "actor"), "user"), "name"),
        "reason": _text(body, "status_detail"),
        "previous_version": _int(extra, "previous_version"),
        "sha256": _text(extra, "sha256"),
        "widened": _texts(extra, "widened", LIST_LIMIT),
    }


def _get_lifecycle(body: Json, extra: Json) -> Json:
    decided = _object(extra, "decided") if "decided" in extra else None
    return {
        "decisions": _int(decided, "decisions") if decided else 0,
        "slow": _int(decided, "slow") if decided else 0,
        "p99_ms": _number(decided, "p99_ms") if decided else 0.0,
        "component": _text(_object(body, "app"), "name"),
        "status": _text(body, "status_detail"),
        "lost": _int(extra, "lost"),
        "violations": _int(extra, "violations"),
    }


def _get_route(body: Json, extra: Json) -> Json:
    route = _object(extra, "route")
    confidence = route.get("confidence")
    if (type(confidence) is not float and type(confidence) is not int) or not 0 <= confidence <= 1:
        raise Rejected("range", "route.confidence: not a number from 0 to 1")
    if "data_types" not in route:
        _reject_type("route.data_types")
    sensitivity = _SENSITIVITIES.get(_text(route, "sensitivity"))
    if sensitivity is None:
        raise Rejected("range", "route.sensitivity: not one of the router's classes")
    destination = _text(route, "destination")
    if destination not in ("local", "cloud"):
        raise Rejected("range", "route.destination: neither local nor cloud")
    return {
        "model": _text(_object(_object(body, "api"), "service"), "name"),
        "endpoint": _text(route, "endpoint"),
        "destination": destination,
        "sensitivity": sensitivity,
        "confidence": float(confidence),
        "data_types": _texts(route, "data_types", LIST_LIMIT),
    }


def _get_alert(body: Json, _extra: Json) -> Json:
    info = _object(body, "finding_info")
    attacks = info.get("attacks", [])
    if type(attacks) is not list or len(attacks) > LIST_LIMIT or not all(type(item) is dict for item in attacks):
        _reject_type("finding_info.attacks")
    return {
        "title": _text(info, "title"),
        "alert": _text(info, "uid"),
        "attack": tuple(_text(_object(item, "technique"), "uid", ENTRY_LIMIT) for item in attacks),
        "product": _text(_object(info, "product"), "name"),
        "host": _text(_object(body, "device"), "hostname"),
        "user": _text(_object(_object(body, "actor"), "user"), "name"),
    }


def _get_use(body: Json, extra: Json) -> Json:
    found = _object(extra, "credential")
    return {
        "issuer": _text(_object(body, "service"), "name"),
        "origin": _text(_object(body, "src_endpoint"), "ip"),
        "credential": _text(found, "name", 256),
        "operation": _text(found, "operation"),
        "elsewhere": _flag(found, "elsewhere"),
        "canary": _flag(found, "canary"),
    }


_ANY = frozenset(Source) - {Source.EXTERNAL}
_EXTERNAL = frozenset({Source.EXTERNAL})
_SANDBOX = frozenset({Source.SANDBOX})
_FLOWS = frozenset({Source.SANDBOX, Source.POLICY, Source.ROUTING})
_CLASSES: dict[
    int,
    tuple[type[Event], Callable[[Any, Json], None], Callable[[Json, Json], Json], frozenset[Source]],
] = {
    FileActivity.class_uid: (FileActivity, _put_file, _get_file, _SANDBOX),
    KernelActivity.class_uid: (KernelActivity, _put_kernel, _get_kernel, _SANDBOX),
    ProcessActivity.class_uid: (ProcessActivity, _put_process, _get_process, _SANDBOX),
    NetworkActivity.class_uid: (NetworkActivity, _put_flow, _get_flow, _FLOWS),
    HttpActivity.class_uid: (HttpActivity, _put_http, _get_http, _FLOWS),
    PolicyChange.class_uid: (PolicyChange, _put_change, _get_change, frozenset({Source.POLICY})),
    Lifecycle.class_uid: (Lifecycle, _put_lifecycle, _get_lifecycle, _ANY),
    RouteActivity.class_uid: (RouteActivity, _put_route, _get_route, frozenset({Source.ROUTING})),
    ExternalAlert.class_uid: (ExternalAlert, _put_alert, _get_alert, _EXTERNAL),
    CredentialUse.class_uid: (CredentialUse, _put_use, _get_use, _EXTERNAL),
}


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):  # two readers could each believe another of the two values
        raise Rejected("duplicate-key", "an object has the same key twice")
    return found


def _not_json(constant: str) -> NoReturn:
    raise Rejected("not-json", f"{constant} is not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_json).decode


def load(line: bytes) -> Json:
    """The line as a JSON object, strictly: UTF-8, no key twice, no NaN. `Rejected` otherwise."""
    if len(line) > LINE_LIMIT:
        raise Rejected("too-long", f"line of {len(line)} bytes, more than {LINE_LIMIT}")
    try:
        text = line.decode("utf-8")
        body = _decode(text)
    except UnicodeDecodeError as error:
        raise Rejected("not-utf-8", f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise Rejected("too-deep", "nested too deeply") from None
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Rejected("not-json", f"not JSON{where}") from None
    if type(body) is not dict:
        raise Rejected("not-json", "not a JSON object")
    return body


def _identity(metadata: Json, extra: Json) -> tuple[str, str]:
    agent, instance = _text(extra, "agent"), _text(metadata, "uid")
    if bool(agent) != bool(instance):
        raise Rejected("identity", "agent and metadata.uid: one without the other")
    if agent and not (_NAME.fullmatch(agent) and _NAME.fullmatch(instance)):
        raise Rejected("identity", "agent or metadata.uid: not a name that the core gives")
    return agent, instance


def parse_line(line: bytes, source: Source | None) -> Event:
    """One line, without its newline, as the event it is. `source` is the stream it was read from, None for mixed files.

    Raises `Rejected` (an `InvalidInput`) on anything off; the message never quotes the line.
    """
    body = load(line)
    metadata, extra = _object(body, "metadata"), _object(body, "unmapped")
    known = _CLASSES.get(_int(body, "class_uid"))
    if known is None:
        raise Rejected("class", "class_uid: none of the classes that Clawback writes")
    kind, _, get, streams = known
    activity = _int(body, "activity_id", 99)
    if body.get("type_uid") != kind.class_uid * 100 + activity or body.get("category_uid") != kind.class_uid // 1000:
        raise Rejected("class", "type_uid, category_uid and class_uid contradict each other")
    named = _SOURCES.get(_text(metadata, "log_name"))
    if named is None or (source is not None and named is not source):
        raise Rejected("stream", "metadata.log_name: not the stream that the line was read from")
    if named not in streams:
        raise Rejected("stream", f"class {kind.class_uid} does not belong in the {named} stream")
    time_ns = _int(extra, "time_ns")
    if body.get("time") != time_ns // 1_000_000:
        raise Rejected("time", "time and time_ns contradict each other")
    disposition = _DISPOSITIONS.get(_int(body, "disposition_id"))
    severity = _SEVERITIES.get(_int(body, "severity_id"))
    if disposition is None or severity is None or body.get("action_id") != _ACTION_OF[disposition]:
        raise Rejected("range", "severity_id, disposition_id or action_id: not one that Clawback writes")
    agent, instance = _identity(metadata, extra)
    writer = _text(metadata, "log_provider")
    if not _NAME.fullmatch(writer):
        raise Rejected("identity", "metadata.log_provider: not the name of a writer")
    policy, version = "", 0
    if "policy" in body:
        policy, version = _policy(_object(body, "policy"))
    return kind(
        time_ns=time_ns,
        writer=writer,
        sequence=_int(metadata, "sequence", low=1),
        source=named,
        agent=agent,
        instance=instance,
        activity_id=activity,
        severity=severity,
        disposition=disposition,
        policy=policy,
        policy_version=version,
        message=_text(body, "message"),
        **get(body, extra),
    )


def _policy(found: Json) -> tuple[str, int]:
    version = _text(found, "version", 19)
    if not (version.isascii() and version.isdigit()):
        raise Rejected("type", "policy.version: not a whole number")
    return _text(found, "name"), int(version)
