"""Reads a `networkPolicy` document: who may be reached, where, by which methods and paths."""

from __future__ import annotations

import re

from clawback.enforcement.policy.names import AmbiguousError, address_of, normal_host, normal_path
from clawback.enforcement.policy.nodes import Item
from clawback.enforcement.policy.types import Effect, EgressRule, NetworkPolicy

__all__ = ["NAME", "egress_rules", "network_policy", "policy_name", "wildcard_too_wide"]

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
"""What a policy may be called: it becomes a folder's name."""

_INSPECTED = {
    "tlsDecrypt": "the gateway opens TLS where a rule looks at requests, and nowhere else",
    "logPayloads": "requests are recorded without their payloads",
    "scanForPII": "payloads are not scanned",
}
_RULE = ("name", "domain", "ports", "methods", "paths", "model")
_RULE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_METHOD = re.compile(r"[A-Z]{1,20}")
_MAX_RULES = 256
# Registries' second level (`co.uk`, `com.au`): a wildcard below one is as wide as `*.com`.
_SECOND_LEVEL = frozenset(("ac", "co", "com", "edu", "gob", "gov", "mil", "ne", "net", "nom", "or", "org"))


def network_policy(item: Item, effects: list[Effect]) -> NetworkPolicy:
    """The policy; what comes of its keys is added to `effects`."""
    top = item.mapping(("name", "egress", "ingress", "inspection"), required=("name",))
    name = policy_name(top["name"])
    allow: tuple[EgressRule, ...] = ()
    deny: tuple[EgressRule, ...] = ()
    if "egress" in top:
        egress = top["egress"].mapping(("allow", "deny"))
        taken: set[str] = set()
        allow = egress_rules(egress.get("allow"), taken, allow=True)
        deny = egress_rules(egress.get("deny"), taken, allow=False)
        for key, rules in (("allow", allow), ("deny", deny)):
            if key in egress:
                effects.append(Effect(f"networkPolicy.egress.{key}", "gateway", f"rules: {len(rules)}"))
    if "ingress" in top:
        _ingress(top["ingress"])
        effects.append(
            Effect("networkPolicy.ingress", "", "nothing from outside reaches a sandbox: there is no way in")
        )
    if "inspection" in top:
        found = top["inspection"].mapping(("tlsDecrypt", "logPayloads", "scanForPII"))
        asked = {key: value.boolean() for key, value in found.items()}
        effects.extend(
            Effect(f"networkPolicy.inspection.{key}", "", _INSPECTED[key]) for key, wanted in asked.items() if wanted
        )
    return NetworkPolicy(name=name, allow=allow, deny=deny)


def policy_name(item: Item) -> str:
    """A `name` value."""
    name = item.text(limit=63)
    if not NAME.fullmatch(name):
        raise item.wrong("not a name", hint="lower-case letters, digits, '-', '_' and '.', at most 63")
    return name


def egress_rules(item: Item | None, taken: set[str], *, allow: bool) -> tuple[EgressRule, ...]:
    """A list of egress rules; their names are added to `taken`."""
    if item is None:
        return ()
    rules = []
    for number, entry in enumerate(item.list(limit=_MAX_RULES), start=1):
        found = entry.mapping(_RULE if allow else _RULE[:-1], required=("domain",))
        domain = _domain(found["domain"], allow=allow)
        name = f"{'allow' if allow else 'deny'}-{number}:{domain}"
        if "name" in found:
            name = found["name"].text(limit=63)
            if not _RULE_NAME.fullmatch(name):
                raise found["name"].wrong("not a rule name", hint="letters, digits, '-', '_' and '.', at most 63")
        if name in taken:
            raise entry.wrong(f"rule name {name!r} stands twice", hint="decisions are logged by it: make it unique")
        taken.add(name)
        rules.append(
            EgressRule(
                name=name,
                domain=domain,
                ports=_ports(found["ports"]) if "ports" in found else (),
                methods=_methods(found["methods"], with_paths="paths" in found) if "methods" in found else (),
                paths=_paths(found["paths"]) if "paths" in found else (),
                model=found["model"].one_of(("local", "cloud")) if "model" in found else "",
            )
        )
    return tuple(rules)


def _domain(item: Item, *, allow: bool) -> str:
    written = item.text(limit=253)
    if written == "*":
        if allow:
            raise item.wrong("allows every host", hint="name the hosts; `*.example.com` is the widest form")
        return "*"
    wild = written.startswith("*.")
    rest = written[2:] if wild else written
    if "*" in rest:
        raise item.wrong("'*' may only be the whole first label", hint="such as *.example.com")
    if "/" in rest or (":" in rest and rest.count(":") < 2):
        raise item.wrong(
            "a domain, not a URL, and without a port", hint="put ports, methods and paths in their own keys"
        )
    try:
        host = normal_host(rest)
    except AmbiguousError as error:
        raise item.wrong(f"not a host: {error}", hint="such as api.example.com") from None
    if address_of(host) is not None:
        if wild or host != rest.removesuffix(".").lower():
            raise item.wrong("an address in an unusual spelling", hint=f"write {host}")
        return host
    if wild and allow and wildcard_too_wide(host):
        raise item.wrong(f"too wide: everything below {host}", hint="name the organisation's own domain")
    return f"*.{host}" if wild else host


def wildcard_too_wide(host: str) -> bool:
    """Whether everything below `host` is more than one organisation's: `com`, `co.uk`."""
    labels = host.split(".")
    return len(labels) < 2 or (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _SECOND_LEVEL)


def _ports(item: Item) -> tuple[int, ...]:
    ports = tuple(entry.integer(1, 65_535) for entry in item.list(limit=64))
    if not ports:
        raise item.wrong("no ports: the rule would match nothing, or all", hint="name them, or drop the key")
    return ports


def _methods(item: Item, *, with_paths: bool) -> tuple[str, ...]:
    methods = []
    for entry in item.list(limit=32):
        method = entry.text(limit=20)
        if not _METHOD.fullmatch(method):
            raise entry.wrong("not a method", hint="upper-case, such as GET; drop the key to mean any")
        methods.append(method)
    if not methods:
        raise item.wrong("no methods: the rule would match nothing, or all", hint="name them, or drop the key")
    if "CONNECT" in methods and (len(methods) > 1 or with_paths):
        raise item.wrong(
            "CONNECT opens a tunnel, in which other methods and paths cannot be told apart",
            hint="give CONNECT a rule of its own, without paths",
        )
    return tuple(methods)


def _paths(item: Item) -> tuple[str, ...]:
    paths = []
    for entry in item.list(limit=256):
        path = entry.text(limit=1024)
        try:
            plain = normal_path(path) == path and "?" not in path and "***" not in path
        except AmbiguousError as error:
            raise entry.wrong(str(error), hint="write it decoded, such as /v1/users/* or /v1/**") from None
        if not plain:
            raise entry.wrong("not a path pattern", hint="decoded and without a query: /v1/users/* or /v1/**")
        paths.append(path)
    if not paths:
        raise item.wrong("no paths: the rule would match nothing, or all", hint="name them, or drop the key")
    return tuple(paths)


def _ingress(item: Item) -> None:
    found = item.mapping(("allow", "deny"))
    for part in found.values():
        for entry in part.list(limit=_MAX_RULES):
            rule = entry.mapping(("source", "path"), required=("source",))
            rule["source"].text(limit=253)
            if "path" in rule and not rule["path"].text().startswith("/"):
                raise rule["path"].wrong("the path is relative", hint="start it with /")
