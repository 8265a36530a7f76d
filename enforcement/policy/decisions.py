"""Reads `decide` under `spec.isolation.syscalls`: escalated calls that a rule decides without asking anybody."""

from __future__ import annotations

import ipaddress
import re

from clawback.enforcement.policy.escalation import ADDRESSED, NAMED, Decision, EscalationRule
from clawback.enforcement.policy.nodes import Item, shown
from clawback.enforcement.policy.paths import path_of
from clawback.enforcement.policy.seccomp_profile import argument_tests

__all__ = ["OPERATORS", "decisions"]

OPERATORS = {word: word for word in ("eq", "ne", "lt", "le", "ge", "gt", "masked_eq")}
_KEYS = ("names", "decision", "addresses", "paths", "writes", "args")
_ADDRESS = re.compile(r"(?P<host>\*|\[[0-9a-fA-F:.]+(/[0-9]{1,3})?\]|[0-9.]+(/[0-9]{1,2})?):(?P<port>\*|[0-9]{1,5})")
_WIDEST = {4: 8, 6: 16}
"""Of an address rule that allows, in bits."""


def decisions(item: Item, escalated: frozenset[str]) -> tuple[EscalationRule, ...]:
    """The rules in their order; each may only name what is `escalated`."""
    return tuple(_decision(entry, escalated) for entry in item.list(limit=256))


def _decision(entry: Item, escalated: frozenset[str]) -> EscalationRule:
    found = entry.mapping(_KEYS, required=("names", "decision"))
    decision = Decision(found["decision"].one_of(tuple(Decision)))
    names = []
    for item in found["names"].list(limit=64):
        name = item.text(limit=64)
        if name not in escalated:
            raise item.wrong(f"{shown(name)} is not escalated: nothing would ask", hint="list it under escalate")
        names.append(name)
    if not names:
        raise found["names"].wrong("no names: the rule would match nothing", hint="name the calls")
    for key, those in (("addresses", ADDRESSED), ("paths", NAMED), ("writes", NAMED)):
        for name in names if key in found else ():
            if name not in those and not (key == "paths" and name in ADDRESSED):
                raise found[key].wrong(
                    f"{name} has no {key} that can be seen", hint=f"only: {', '.join(sorted(those))}"
                )
    allow = decision is Decision.ALLOW
    return EscalationRule(
        names=tuple(names),
        decision=decision,
        addresses=tuple(_address(one, allow=allow) for one in found["addresses"].list(limit=64))
        if "addresses" in found
        else (),
        paths=tuple(map(path_of, found["paths"].list(limit=64))) if "paths" in found else (),
        writes=found["writes"].boolean() if "writes" in found else None,
        tests=argument_tests(found["args"], OPERATORS) if "args" in found else (),
    )


def _address(item: Item, *, allow: bool) -> str:
    """`10.0.0.0/8:443`, `127.0.0.1:*`, `[::1]:80`, `unix:/path`, `unix:/folder/*`, `unix:@name`."""
    text = item.text(limit=256)
    if text.startswith("unix:"):
        rest = text[len("unix:") :]
        if not (rest.startswith("@") and len(rest) > 1) and (not rest.startswith("/") or ".." in rest.split("/")):
            raise item.wrong("not a socket's path", hint="unix:/path, unix:/folder/* or unix:@name")
        if allow and rest == "/*":
            raise item.wrong("too wide: every socket", hint="name the folder")
        return text
    found = _ADDRESS.fullmatch(text)
    if found is None or (found["port"] != "*" and not 1 <= int(found["port"]) <= 65_535):
        raise item.wrong("not an address and port", hint="such as 10.0.0.0/8:443, [::1]:80 or 127.0.0.1:*")
    if found["host"] == "*":
        if allow:
            raise item.wrong("too wide: every host", hint="name the network")
        return text
    try:
        network = ipaddress.ip_network(found["host"].strip("[]"))
    except ValueError as error:
        raise item.wrong(f"not a network: {error}", hint="such as 10.0.0.0/8:443") from None
    if allow and network.prefixlen < _WIDEST[network.version]:
        raise item.wrong("too wide", hint="name the networks that are meant")
    return text
