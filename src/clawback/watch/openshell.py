"""Read OpenShell's own OCSF JSON lines (schema 1.7 or 1.8) as our events, as far as ours have a place for them.

OpenShell numbers no events, keeps no nanoseconds, and knows sandboxes but no agents: the sandbox's id stands for agent
and instance, and nothing read here can name a running agent of ours. For replaying files, not for live containment.
"""

from __future__ import annotations

import re
from typing import Any

from clawback.model import (
    Disposition,
    Event,
    HttpActivity,
    Lifecycle,
    NetworkActivity,
    PolicyChange,
    ProcessActivity,
    Severity,
    Source,
)
from clawback.model.ocsf import PATH_LIMIT, TEXT_LIMIT, Rejected, load

__all__ = ["WRITER", "is_openshell", "parse_openshell"]

WRITER = "openshell"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_SEVERITIES = {int(item): item for item in Severity}

Json = dict[str, Any]


def is_openshell(line: bytes) -> bool:
    """The line's product says so. A line of ours in which an agent merely wrote that name is not taken for one."""
    return b'"name":"OpenShell' in line.replace(b": ", b":") and b'"name":"Clawback"' not in line


def parse_openshell(line: bytes, sequence: int) -> Event | None:
    """The event, numbered as told; None for a class that has no counterpart (SSH, findings, inference).

    Raises `Rejected` for what is not OpenShell's, or not sound.
    """
    body = load(line)
    metadata = _object(body, "metadata")
    if "openshell" not in _text(_object(metadata, "product"), "name").lower():
        raise Rejected("product", "metadata.product: not OpenShell")
    sandbox = _text(metadata, "uid")
    if not _NAME.fullmatch(sandbox):
        raise Rejected("identity", "metadata.uid: not the id of a sandbox")
    build = _KINDS.get(_int(body, "class_uid", 0, 99_999))
    if build is None:
        return None
    shared: Json = {
        "time_ns": _int(body, "time", 0, 2**43) * 1_000_000,
        "writer": WRITER,
        "sequence": sequence,
        "agent": sandbox,
        "instance": sandbox,
        "activity_id": _int(body, "activity_id", 0, 99),
        "severity": _SEVERITIES.get(body.get("severity_id", 0), Severity.UNKNOWN),
        "disposition": _disposition(body),
        "policy": _text(_object(body, "firewall_rule"), "name"),
        "message": _text(body, "message"),
    }
    return build(body, shared)


def _disposition(body: Json) -> Disposition:
    if body.get("disposition_id") == Disposition.BLOCKED or body.get("action_id") == 2:
        return Disposition.BLOCKED
    if body.get("disposition_id") == Disposition.ALLOWED or body.get("action_id") == 1:
        return Disposition.ALLOWED
    return Disposition.UNKNOWN


def _flow(body: Json) -> Json:
    endpoint = _object(body, "dst_endpoint")
    traffic = _object(body, "traffic")
    return {
        "source": Source.POLICY,
        "host": _text(endpoint, "domain") or _text(endpoint, "hostname") or _text(endpoint, "ip"),
        "port": _int(endpoint, "port", 0, 65_535),
        "connection": _text(_object(body, "connection_info"), "uid"),
        "bytes_out": _int(traffic, "bytes_out", 0, 2**63 - 1),
        "bytes_in": _int(traffic, "bytes_in", 0, 2**63 - 1),
        "rule": _text(_object(body, "firewall_rule"), "name"),
        "reason": _text(body, "status_detail"),
    }


def _network(body: Json, shared: Json) -> Event:
    return NetworkActivity(**shared, **_flow(body))


def _http(body: Json, shared: Json) -> Event:
    request = _object(body, "http_request")
    url = _object(request, "url")
    flow = _flow(body)
    flow["host"] = flow["host"] or _text(url, "hostname")
    flow["port"] = flow["port"] or _int(url, "port", 0, 65_535)
    return HttpActivity(
        **shared,
        **flow,
        method=_text(request, "http_method"),
        path=_text(url, "path", PATH_LIMIT),
        status=_int(_object(body, "http_response"), "code", 0, 999),
    )


def _process(body: Json, shared: Json) -> Event:
    process = _object(body, "process") or _object(_object(body, "actor"), "process")
    return ProcessActivity(
        **shared,
        source=Source.SANDBOX,
        pid=_int(process, "pid", 0, 2**31),
        exe=_text(_object(process, "file"), "path") or _text(process, "name"),
        command=_text(process, "cmd_line", PATH_LIMIT),
    )


def _change(body: Json, shared: Json) -> Event:
    return PolicyChange(**shared, source=Source.POLICY, reason=_text(body, "message"))


def _lifecycle(body: Json, shared: Json) -> Event:
    return Lifecycle(
        **shared,
        source=Source.SANDBOX,
        component=_text(_object(body, "app"), "name") or "sandbox",
        status=_text(body, "status_detail") or _text(body, "status"),
    )


_KINDS = {1007: _process, 4001: _network, 4002: _http, 5019: _change, 6002: _lifecycle}


def _object(container: Json, key: str) -> Json:
    value = container.get(key)
    return value if type(value) is dict else {}


def _text(container: Json, key: str, limit: int = TEXT_LIMIT) -> str:
    value = container.get(key)
    if type(value) is not str:
        return ""
    value = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value if len(value) <= limit else value[: limit - 1] + "…"


def _int(container: Json, key: str, low: int, high: int) -> int:
    value = container.get(key, low)
    if type(value) is not int or not low <= value <= high:
        raise Rejected("range", f"{key}: not a whole number from {low} to {high}")
    return value
