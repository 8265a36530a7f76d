"""Which rule of the policy decides a call; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from clawback.enforcement.policy.calls import ArgumentTest
from clawback.enforcement.policy.escalation import Decision, EscalationRule
from clawback.enforcement.supervise.target import Address

__all__ = ["decide", "reaches", "within"]


def decide(
    rules: Sequence[EscalationRule],
    *,
    name: str,
    registers: Sequence[int],
    address: Address | None = None,
    paths: Sequence[str] = (),
    writes: bool | None = None,
) -> tuple[Decision, int]:
    """(decision, which rule counted from 1); (ask, 0) where none matches.

    `paths` are where the call's paths really lead. A rule with `paths` matches where all of them are within it; for a
    rule that denies any one is enough, or a rename could carry a file out of a folder that is closed.
    """
    for number, rule in enumerate(rules, 1):
        if name not in rule.names or not all(_holds(test, registers) for test in rule.tests):
            continue
        if rule.writes is not None and rule.writes is not writes:
            continue
        if rule.addresses and (address is None or not any(reaches(item, address) for item in rule.addresses)):
            continue
        if rule.paths:
            inside = [any(within(item, path) for item in rule.paths) for path in paths]
            if not inside or not (any(inside) if rule.decision is Decision.DENY else all(inside)):
                continue
        return rule.decision, number
    return Decision.ASK, 0


def within(item: str, path: str) -> bool:
    """The path is the item, or below it."""
    return item in {path, "/"} or path.startswith(item.rstrip("/") + "/")


def reaches(item: str, address: Address) -> bool:
    """The address is one that the item names: see `EscalationRule.addresses`."""
    if item.startswith("unix:"):
        return address.text == item or (item.endswith("/*") and address.text.startswith(item[:-1]))
    host, _, port = item.rpartition(":")
    if not address.host or port not in {"*", str(address.port)}:
        return False
    if host == "*":
        return True
    inner = ipaddress.ip_address(address.host.partition("%")[0])
    network = ipaddress.ip_network(host.strip("[]"), strict=False)
    return inner.version == network.version and inner in network


def _holds(test: ArgumentTest, registers: Sequence[int]) -> bool:
    value = registers[test.argument]
    match test.operator:
        case "eq":
            return value == test.value
        case "ne":
            return value != test.value
        case "lt":
            return value < test.value
        case "le":
            return value <= test.value
        case "ge":
            return value >= test.value
        case "gt":
            return value > test.value
        case "masked_eq":
            return value & test.mask == test.value
    return False  # no operator that a loader lets through: the rule does not match, and a person is asked
