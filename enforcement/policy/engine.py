"""Decides one network attempt by a policy: pure, default deny, deny before allow.

Inside a CONNECT tunnel neither method nor path can be seen. So a tunnel is allowed only by a rule that restricts
neither (or that lists the method CONNECT alone), and is denied by any deny rule for its host and port, whatever that
restricts.
"""

from __future__ import annotations

from typing import NamedTuple

from clawback.enforcement.policy.names import AmbiguousError, normal_host, normal_path, path_glob
from clawback.enforcement.policy.types import EgressRule, NetworkPolicy

__all__ = ["Verdict", "decide"]


class Verdict(NamedTuple):
    """`rule` is empty where none matched."""

    allowed: bool
    rule: str
    reason: str


_TUNNEL = ("CONNECT",)


def decide(network: NetworkPolicy, *, host: str, port: int, method: str, path: str) -> Verdict:
    """What the policy says to `method` on `host:port path`; for CONNECT `path` is ignored.

    `path` may carry a query, which no rule sees. Hosts and paths are taken in any spelling and compared in one.
    """
    try:
        name = normal_host(host)
    except AmbiguousError as error:
        return Verdict(False, "", f"host refused: {error}")
    if not 1 <= port <= 65_535:
        return Verdict(False, "", "port out of range")
    method = method.upper()  # some servers take `delete` for DELETE; a deny rule must not miss it
    tunnel = method == "CONNECT"
    default: EgressRule | None = None
    decoded: str | None = None
    for rule in network.deny:
        if rule.domain == "*" and not (rule.ports or rule.methods or rule.paths):
            default = default or rule
            continue
        if not _reaches(rule, name, port):
            continue
        if not (rule.methods or rule.paths):
            return Verdict(False, rule.name, "denied by rule")
        if tunnel:
            return Verdict(False, rule.name, "denied by rule: what it denies cannot be told apart inside a tunnel")
        if rule.methods and method not in rule.methods:
            continue
        if rule.paths:
            try:
                decoded = normal_path(path) if decoded is None else decoded
            except AmbiguousError as error:
                return Verdict(False, rule.name, str(error))
            if not any(path_glob(pattern).fullmatch(decoded) for pattern in rule.paths):
                continue
        return Verdict(False, rule.name, "denied by rule")

    near = ""  # the best reason why an allow rule for this host did not match
    for rule in network.allow:
        if not _reaches(rule, name, port):
            continue
        if tunnel:
            if rule.paths or rule.methods not in ((), _TUNNEL):
                near = f"rule {rule.name} restricts methods or paths, which cannot be seen inside a tunnel"
                continue
            return Verdict(True, rule.name, "allowed by rule")
        if rule.methods and method not in rule.methods:
            near = near or f"method not in rule {rule.name}"
            continue
        if rule.paths:
            try:
                decoded = normal_path(path) if decoded is None else decoded
            except AmbiguousError as error:
                near = str(error)
                continue
            if not any(path_glob(pattern).fullmatch(decoded) for pattern in rule.paths):
                near = f"path not in rule {rule.name}"
                continue
        return Verdict(True, rule.name, "allowed by rule")
    return Verdict(False, default.name if default else "", near or "no rule allows it")


def _reaches(rule: EgressRule, name: str, port: int) -> bool:
    if rule.ports and port not in rule.ports:
        return False
    domain = rule.domain
    if domain in (name, "*"):
        return True
    # The dot is compared too: it keeps `evilexample.com` out of `*.example.com`.
    return domain.startswith("*.") and name.endswith(domain[1:])
