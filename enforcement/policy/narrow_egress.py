"""Narrows `SandboxPolicy` and `networkPolicy` documents in place: egress lists, and the APIs that are permitted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from clawback.enforcement.policy.asked import Asked, pattern_of, says
from clawback.enforcement.policy.names import path_glob
from clawback.enforcement.policy.types import EgressRule, NetworkPolicy, PolicyFile
from clawback.enforcement.policy.wishes import MOST_PATHS, Use, Wishes

__all__ = ["narrow_egress"]


def narrow_egress(documents: list[Any], policy: PolicyFile, wishes: Wishes) -> None:
    """`documents` are the file's, `policy` what the loader made of them."""
    holder = next((x["networkPolicy"] for x in documents if isinstance(x.get("networkPolicy"), dict)), None)
    egress = holder.get("egress") if holder is not None else None
    listed = egress.get("allow") if isinstance(egress, dict) else None
    listed = listed if isinstance(listed, list) else []
    if wishes.keep is not None:
        uses = _uses(policy.network, wishes.keep)
        granted = policy.network.allow[len(listed) :]  # by permissions, after those of the list
        _shrink(listed, policy.network.allow[: len(listed)], uses, wishes)
        _permissions(documents, granted, uses, wishes)
    if wishes.deny:
        _deny(documents, holder, policy, wishes)


def _uses(network: NetworkPolicy, keep: Sequence[Asked]) -> dict[str, Use]:
    """By the rule that allows it. What is denied already is kept by no rule."""
    by_rule: dict[str, list[Asked]] = {}
    blind: set[str] = set()
    for call in keep:
        verdict = says(network, call)
        if verdict.allowed:
            by_rule.setdefault(verdict.rule, []).append(call)
            if call.tunnel and not verdict.inspect:
                blind.add(verdict.rule)
    return {name: Use(tuple(calls), name in blind) for name, calls in by_rule.items()}


def _shrink(listed: list[Any], rules: Sequence[EgressRule], uses: dict[str, Use], wishes: Wishes) -> None:
    for number in reversed(range(len(listed))):
        rule, use = rules[number], uses.get(rules[number].name)
        if use is None:
            if wishes.drop:
                del listed[number]
                wishes.changes.append(f"allow {rule.name}: taken out, nothing of use went by it")
            continue
        narrower = _narrower(rule, use)
        for key, value in narrower.items():
            listed[number][key] = _flow(value)
        if narrower:
            # Rules go by their number where they have no name: what they are logged as must not change.
            wishes.changes.append(f"allow {rule.name}: only {_words(narrower)}")


def _narrower(rule: EgressRule, use: Use) -> dict[str, Any]:
    """The keys that get a smaller value than they had."""
    found: dict[str, Any] = {}
    hosts = {call.host for call in use.calls}
    if rule.domain.startswith("*.") and len(hosts) == 1:
        found["domain"] = hosts.pop()
    if not rule.ports or len(use.ports) < len(rule.ports):
        found["ports"] = use.ports
    if rule.methods == ("CONNECT",):
        return found
    if use.methods and (not rule.methods or len(use.methods) < len(rule.methods)):
        found["methods"] = use.methods
    if not rule.paths and use.paths:
        found["paths"] = use.paths
    elif rule.paths and not use.blind:
        paths = [call.path for call in use.calls if not call.tunnel]
        used = list(dict.fromkeys(new for one in rule.paths for new in _within(one, paths)))
        if used and used != list(rule.paths) and len(used) <= MOST_PATHS:
            found["paths"] = used
    return found


def _within(pattern: str, paths: Sequence[str]) -> list[str]:
    """What of a pattern these paths need: of `/v1/**` each of those below `/v1/`, of any other all or nothing."""
    matched = [path for path in paths if path_glob(pattern).fullmatch(path)]
    prefix = pattern.removesuffix("**")
    if not matched or not pattern.endswith("/**") or "*" in prefix:
        return [pattern] if matched else []
    narrow = sorted({new if (new := pattern_of(path)).startswith(prefix) else path for path in matched})
    # A path with a star in it cannot be said by a pattern: then all that was allowed stays.
    return [pattern] if any("*" in path for path in matched) else narrow


def _permissions(documents: list[Any], granted: Sequence[EgressRule], uses: dict[str, Use], wishes: Wishes) -> None:
    """APIs that are permitted by name and were not used are permitted no longer."""
    if not granted or not wishes.drop:
        return
    for document in documents:
        permissions = document.get("spec", {}).get("permissions") if isinstance(document.get("spec"), dict) else None
        if not isinstance(permissions, dict) or not isinstance(permissions.get("allowedAPIs"), list):
            continue
        names = permissions["allowedAPIs"]
        used = [rule.name.removeprefix("allowedAPIs:") for rule in granted if rule.name in uses]
        for number in reversed(range(len(names))):
            name = str(names[number])
            if not any(_covers(name, api) for api in used):
                del names[number]
                wishes.changes.append(f"allowedAPIs {name}: taken out, it was not used")


def _covers(name: str, api: str) -> bool:
    """Whether a name in the list grants this API; of several requests that it means, each has a number behind it."""
    return name in (api, re.sub(r"-[0-9]+\Z", "", api)) or (name.endswith(".*") and api.startswith(name[:-1]))


def _deny(documents: list[Any], holder: Any, policy: PolicyFile, wishes: Wishes) -> None:
    there = {(rule.domain, rule.ports, rule.methods, rule.paths) for rule in policy.network.deny}
    new: list[dict[str, Any]] = []
    for call in dict.fromkeys(wishes.deny):
        paths = () if call.tunnel else (call.path,)
        if any(character in call.path for character in "*?"):
            paths = ()  # no pattern can say it: then all of the host with this method
        key = (call.host, (call.port,), () if call.tunnel else (call.method,), paths)
        if key in there:
            continue
        there.add(key)
        rule: dict[str, Any] = {"domain": call.host, "ports": [call.port]}
        if not call.tunnel:
            rule["methods"] = [call.method]
        if paths:
            rule["paths"] = list(paths)
        new.append(rule)
        wishes.changes.append(f"deny {_words(rule)}")
    if not new:
        return
    if holder is None:
        documents.append({"networkPolicy": {"name": policy.sandbox.name or "network", "egress": {"deny": new}}})
        return
    if not isinstance(holder.get("egress"), dict):
        holder["egress"] = {}
    if not isinstance(holder["egress"].get("deny"), list):
        holder["egress"]["deny"] = []
    holder["egress"]["deny"].extend(_mapping(rule) for rule in new)


def _mapping(rule: dict[str, Any]) -> Any:
    return CommentedMap((key, _flow(value)) for key, value in rule.items())


def _flow(value: Any) -> Any:
    """A list on one line, as people write short ones."""
    if not isinstance(value, list):
        return value
    made = CommentedSeq(value)
    made.fa.set_flow_style()
    return made


def _words(keys: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in keys.items()
    )
