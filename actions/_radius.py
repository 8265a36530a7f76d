"""How far an agent's doing could reach, as an upper estimate, and the rule behind its level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clawback.actions._reached import bounded
from clawback.actions._related import MOST_RELATED, related, same_revocation
from clawback.model import AgentInfo, Incident

__all__ = ["blast_radius"]


def blast_radius(
    incident: Incident, info: AgentInfo, everyone: Sequence[AgentInfo], what: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the agent could reach, whether or not it did. `what`: see `_reached.reached`; else the findings' alone."""
    others = related(info, everyone)
    sharing = [
        other.agent
        for other in everyone
        if other.agent != info.agent and any(same_revocation(a, b) for a in info.credentials for b in other.credentials)
    ]
    same_policy = [x.agent for x in everyone if x.agent != info.agent and x.policy == info.policy]
    below = [one.info.agent for one in others if one.why[0].startswith("works for ")]
    level, why = _level(info, sharing, below)
    calls = {call for finding in incident.findings for call in finding.attempts}
    radius: dict[str, Any] = {
        "level": level,
        "why": why,
        "sub_agents": bounded(below),
        "agents_sharing_credentials": bounded(sharing),
        "agents_under_the_same_policy": bounded(same_policy),
        "contained_with_it": bounded(one.info.agent for one in others[:MOST_RELATED]),
        "credentials": len(info.credentials),
        "destinations": len(what["destinations"]) if what else _count(calls, {"http", "connect"}),
        "data_sets": len(what["data"]) if what else _count(calls, {"http", "open"}),
    }
    if len(others) > MOST_RELATED:
        radius["too_many_to_contain_unasked"] = bounded(one.info.agent for one in others[MOST_RELATED:])
    return radius


def _count(calls: set[tuple[str, str]], kinds: set[str]) -> int:
    return sum(kind in kinds for kind, _ in calls)


def _level(info: AgentInfo, sharing: list[str], below: list[str]) -> tuple[str, str]:
    if sharing or len(info.credentials) > 3:
        return "high", "credentials are shared with other agents, or there are many"
    if below:
        return "high", "other agents work for it"
    if info.credentials:
        return "medium", "it held credentials that work outside its sandbox"
    return "low", "it held no credentials"
