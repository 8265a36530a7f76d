"""Reads `spec.permissions`: APIs by name, and which requests they are.

An API is an action's name (`crm.read`). The gateway sees requests, so `apis` says which requests a name means; a name
without that is kept and nothing enforces it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from clawback.enforcement.policy.network import egress_rules
from clawback.enforcement.policy.nodes import Item
from clawback.enforcement.policy.types import Effect, EgressRule

__all__ = ["Permissions", "permissions"]

_API = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?")
_NOWHERE = "spec.permissions.apis does not say which requests that is, so the gateway cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """The names as written, and the egress rules that they come to."""

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    allow: tuple[EgressRule, ...] = ()
    deny: tuple[EgressRule, ...] = ()


def permissions(item: Item, effects: list[Effect]) -> Permissions:
    """The section; what comes of each name is added to `effects`."""
    found = item.mapping(("allowedAPIs", "deniedAPIs", "apis"))
    meant: dict[str, tuple[EgressRule, ...]] = {}
    if "apis" in found:
        for name, entry in found["apis"].entries(limit=256).items():
            if not _API.fullmatch(name) or name.endswith("*"):
                raise entry.wrong("not an API's name", hint="such as crm.read")
            meant[name] = egress_rules(entry, set(), allow=True)
            if not meant[name]:
                raise entry.wrong("no requests", hint="such as [{domain: crm.example.com, methods: [GET]}]")
    sides: dict[str, tuple[tuple[str, ...], tuple[EgressRule, ...]]] = {}
    for key in ("allowedAPIs", "deniedAPIs"):
        names: list[str] = []
        rules: dict[str, EgressRule] = {}
        for entry in found[key].list(limit=256) if key in found else ():
            name = _name(entry, allow=key == "allowedAPIs")
            names.append(name)
            which = [api for api in meant if _covers(name, api)]
            for api in which:
                for number, rule in enumerate(meant[api], start=1):
                    label = f"{key}:{api}" if len(meant[api]) == 1 else f"{key}:{api}-{number}"
                    model = rule.model if key == "allowedAPIs" else ""
                    rules[label] = replace(rule, name=label, model=model)
            by, how = ("gateway", f"egress rules of {', '.join(which[:8])}") if which else ("", _NOWHERE)
            effects.append(Effect(f"{entry.key} {name}", by, how))
        sides[key] = tuple(names), tuple(rules.values())
    (allowed, allow), (denied, deny) = sides["allowedAPIs"], sides["deniedAPIs"]
    return Permissions(allowed=allowed, denied=denied, allow=allow, deny=deny)


def _name(entry: Item, *, allow: bool) -> str:
    name = entry.text(limit=128)
    if name == "*" and allow:
        raise entry.wrong("allows every API", hint="name the APIs; `crm.*` is the widest form")
    if name != "*" and not _API.fullmatch(name):
        raise entry.wrong("not an API name", hint="such as crm.read or billing.*")
    return name


def _covers(name: str, api: str) -> bool:
    return name in ("*", api) or (name.endswith(".*") and api.startswith(name[:-1]))
