"""Decides one network attempt by a policy: pure, default deny, deny before allow.

Inside a CONNECT tunnel neither method nor path can be seen. So a tunnel is let through blindly only where no rule for
its host and port restricts either. Where one does, the tunnel is allowed if it is looked into (`inspect`): TLS ends in
the gateway, and each request inside is decided anew.
"""

from __future__ import annotations

from clawback.enforcement.policy.endpoint_engine import Endpoints, Programs
from clawback.enforcement.policy.names import AmbiguousError, normal_host, normal_path, path_glob
from clawback.enforcement.policy.types import EgressRule, NetworkPolicy
from clawback.enforcement.policy.verdict import Verdict

__all__ = ["Engine", "decide"]

_TUNNEL = ("CONNECT",)


class Engine:
    """One policy, made ready for many decisions."""

    def __init__(self, network: NetworkPolicy) -> None:
        self._network = network
        self._endpoints = Endpoints(network.rules)

    def decide(
        self,
        *,
        host: str,
        port: int,
        method: str,
        path: str,
        programs: Programs | None = None,
        body: bytes | None = None,
    ) -> Verdict:
        """What the policy says to `method` on `host:port path`; for CONNECT `path` is ignored.

        `path` may carry a query, which only OpenShell's rules see. Hosts and paths are taken in any spelling and
        compared in one. `programs` and `body` are for rules that look at them: see `Verdict`.
        """
        if not self._network.rules:
            return decide(self._network, host=host, port=port, method=method, path=path)
        try:
            name = normal_host(host)
        except AmbiguousError as error:
            return Verdict(False, "", f"host refused: {error}")
        return self._endpoints.decide(name, port, method.upper(), path, programs, body)


def decide(network: NetworkPolicy, *, host: str, port: int, method: str, path: str) -> Verdict:
    """The same for a `networkPolicy` document, once."""
    try:
        name = normal_host(host)
    except AmbiguousError as error:
        return Verdict(False, "", f"host refused: {error}")
    if not 1 <= port <= 65_535:
        return Verdict(False, "", "port out of range")
    method = method.upper()  # some servers take `delete` for DELETE; a deny rule must not miss it
    if method == "CONNECT":
        return _tunnel(network, name, port)
    plain, strange = "", ""
    try:
        plain = normal_path(path)
    except AmbiguousError as error:
        strange = str(error)
    return _denied(network, name, port, method, plain, strange) or _request(network, name, port, method, plain, strange)


def _denied(network: NetworkPolicy, name: str, port: int, method: str, path: str, strange: str) -> Verdict | None:
    for rule in network.deny:
        if _is_default(rule) or not _reaches(rule, name, port) or (rule.methods and method not in rule.methods):
            continue
        if not rule.paths:
            return Verdict(False, rule.name, "denied by rule", "method" if rule.methods else "destination")
        if strange:
            return Verdict(False, rule.name, strange, "path")
        if any(path_glob(pattern).fullmatch(path) for pattern in rule.paths):
            return Verdict(False, rule.name, "denied by rule", "path")
    return None


def _request(network: NetworkPolicy, name: str, port: int, method: str, path: str, strange: str) -> Verdict:
    near, level = "", "destination"  # the best reason why an allow rule for this host did not match
    for rule in network.allow:
        if not _reaches(rule, name, port):
            continue
        if rule.methods and method not in rule.methods:
            if not near:
                near, level = f"method not in rule {rule.name}", "method"
            continue
        if not rule.paths:
            return Verdict(True, rule.name, "allowed by rule", "method" if rule.methods else "destination")
        if not strange and any(path_glob(pattern).fullmatch(path) for pattern in rule.paths):
            return Verdict(True, rule.name, "allowed by rule", "path")
        near, level = strange or f"path not in rule {rule.name}", "path"
    return Verdict(False, _default(network), near or "no rule allows it", level)


def _tunnel(network: NetworkPolicy, name: str, port: int) -> Verdict:
    seen = ""  # a rule that denies some of what may be inside
    for rule in network.deny:
        if _is_default(rule) or not _reaches(rule, name, port):
            continue
        if "CONNECT" in rule.methods or not (rule.methods or rule.paths):
            return Verdict(False, rule.name, "denied by rule")
        seen = seen or rule.name
    near, some = "", ""  # the first rule that allows some of what may be inside
    for rule in network.allow:
        if not _reaches(rule, name, port):
            continue
        if rule.methods == _TUNNEL and seen:
            near = f"rule {rule.name} allows a blind tunnel, and rule {seen} denies what may be inside"
        elif rule.paths or rule.methods not in {(), _TUNNEL}:
            some = some or rule.name
        else:
            return Verdict(True, rule.name, "allowed by rule", inspect=bool(seen))
    if some:
        return Verdict(True, some, "allowed by rule, to be looked into", inspect=True)
    return Verdict(False, _default(network), near or "no rule allows it")


def _is_default(rule: EgressRule) -> bool:
    return rule.domain == "*" and not (rule.ports or rule.methods or rule.paths)


def _default(network: NetworkPolicy) -> str:
    return next((rule.name for rule in network.deny if _is_default(rule)), "")


def _reaches(rule: EgressRule, name: str, port: int) -> bool:
    if rule.ports and port not in rule.ports:
        return False
    domain = rule.domain
    if domain in (name, "*"):
        return True
    # The dot is compared too: it keeps `evilexample.com` out of `*.example.com`.
    return domain.startswith("*.") and name.endswith(domain[1:])
