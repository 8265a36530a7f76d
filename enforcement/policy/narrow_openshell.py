"""Narrows an OpenShell document's or a NemoClaw preset's `network_policies` in place.

That form denies by leaving out: an endpoint that rogue calls went to is taken out, or, where requests are looked at and
the call is known by method and path, gets a deny rule that is enforced.
"""

from __future__ import annotations

from typing import Any

from clawback.enforcement.policy.asked import Asked, pattern_of
from clawback.enforcement.policy.endpoints import Endpoint
from clawback.enforcement.policy.globs import glob, host_glob
from clawback.enforcement.policy.types import NetworkPolicy
from clawback.enforcement.policy.wishes import MOST_PATHS, Wishes

__all__ = ["narrow_openshell"]

_REQUESTS = ("rest", "websocket")


def narrow_openshell(document: Any, network: NetworkPolicy, wishes: Wishes) -> None:
    """`network` is what the loader made of `document`."""
    policies = document.get("network_policies")
    if not isinstance(policies, dict):
        return
    for rule in network.rules:
        written = policies.get(rule.key)
        listed = written.get("endpoints") if isinstance(written, dict) else None
        if not isinstance(listed, list):
            continue
        for number in reversed(range(len(listed))):
            endpoint = rule.endpoints[number]
            if _denied(listed[number], rule.key, endpoint, wishes) or _unused(rule.key, endpoint, wishes):
                del listed[number]
            elif wishes.keep is not None:
                _shrink(listed[number], rule.key, endpoint, wishes)
        if not listed:
            del policies[rule.key]


def _reaches(endpoint: Endpoint, call: Asked) -> bool:
    if call.port not in endpoint.ports:
        return False
    return not endpoint.host or endpoint.host == call.host or bool(host_glob(endpoint.host).fullmatch(call.host))


def _denied(written: Any, key: str, endpoint: Endpoint, wishes: Wishes) -> bool:
    """Whether the endpoint must go altogether for the calls to be denied."""
    calls = [call for call in wishes.deny if _reaches(endpoint, call)]
    if not calls:
        return False
    if endpoint.protocol not in _REQUESTS or any(call.tunnel or not _plain(call.path) for call in calls):
        wishes.changes.append(f"{key}: {endpoint.host or 'any host'}:{_ports(endpoint)} taken out")
        return True
    rules = written.setdefault("deny_rules", [])
    for call in calls:
        rules.append({"method": call.method, "path": call.path})
        wishes.changes.append(f"{key}: {endpoint.host} denies {call.method} {call.path}")
    if not endpoint.enforce:
        written["enforcement"] = "enforce"
        wishes.changes.append(f"{key}: {endpoint.host} enforces its rules; they were only logged")
    return False


def _unused(key: str, endpoint: Endpoint, wishes: Wishes) -> bool:
    if wishes.keep is None or not wishes.drop or any(_reaches(endpoint, call) for call in wishes.keep):
        return False
    wishes.changes.append(f"{key}: {endpoint.host or 'any host'}:{_ports(endpoint)} taken out, it was not used")
    return True


def _shrink(written: Any, key: str, endpoint: Endpoint, wishes: Wishes) -> None:
    """Of an endpoint whose requests are looked at: only the requests that were seen, within those that it allowed."""
    calls = [call for call in wishes.keep or () if _reaches(endpoint, call) and not call.tunnel]
    if endpoint.protocol != "rest" or not calls:
        return
    if "rules" in written:
        rules = written["rules"]
        for number in reversed(range(len(rules))):
            matcher = endpoint.allow[number] if number < len(endpoint.allow) else None
            if matcher is not None and not any(_fits(matcher.method, matcher.path, call) for call in calls):
                del rules[number]
                wishes.changes.append(
                    f"{key}: {endpoint.host} no longer allows {matcher.method} {matcher.path or '/**'}"
                )
        return
    allowed = [call for call in calls if any(_fits(x.method, x.path, call) for x in endpoint.allow)]
    seen = sorted({(call.method, pattern_of(call.path)) for call in allowed})
    if not seen or len(seen) > MOST_PATHS or any(not path for _, path in seen):
        return
    written.pop("access", None)
    written["rules"] = [{"allow": {"method": method, "path": path}} for method, path in seen]
    wishes.changes.append(f"{key}: {endpoint.host} allows only {', '.join(f'{m} {p}' for m, p in seen)[:400]}")


def _fits(method: str, path: str, call: Asked) -> bool:
    return method in ("", "*", call.method) and (path in ("", "**", "/**") or bool(glob(path).fullmatch(call.path)))


def _plain(path: str) -> bool:
    return not any(character in path for character in "*?[]{}!")


def _ports(endpoint: Endpoint) -> str:
    return ",".join(map(str, endpoint.ports))
