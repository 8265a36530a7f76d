"""How far an incident reaches, in lines for whoever is asked to consent to something wide: as the scope recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clawback.model import Incident, ReceiptState

__all__ = ["reach"]

SCOPE = "incident.scope"
_SHOWN = 8
_AGENTS = ("sub_agents", "agents_sharing_credentials", "too_many_to_contain_unasked")
_COUNTS = ("credentials", "destinations", "data_sets")


def reach(incident: Incident) -> tuple[str, ...]:
    """The blast radius; one line that says so where no scope is on record."""
    scopes = [x for x in incident.receipts if x.action == SCOPE and x.state is ReceiptState.VERIFIED]
    if not scopes:
        return ("blast radius: not on record, no incident.scope was verified",)
    outcome = scopes[-1].outcome
    radius: Mapping[str, Any] = outcome.get("blast_radius", {})
    lines = [f"blast radius: {radius.get('level', 'unknown')} ({radius.get('why', 'no reason on record')})"]
    lines += [f"{name.replace('_', ' ')}: {_few(radius[name])}" for name in _AGENTS if radius.get(name)]
    lines += [f"{name.replace('_', ' ')}: {radius[name]}" for name in _COUNTS if radius.get(name)]
    if people := [str(one.get("who", "")) for one in outcome.get("identities", ())]:
        lines.append(f"identities: {_few(people)}")
    return tuple(lines)


def _few(values: Any) -> str:
    listed = [str(value) for value in values]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{', '.join(listed[:_SHOWN])}{more}"
