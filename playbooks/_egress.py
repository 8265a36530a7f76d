"""Contain at the gateway: what this incident denies to agents above their policies, until somebody lifts it.

Orders outlive the incident: the policy that goes back in place says what is allowed, an order what must not be, and the
post-incident review turns it into a deny rule. `clawback orders` lists and lifts them.
"""

from __future__ import annotations

from clawback.actions.inference_queue_sensitive import ACTION as QUEUE_SENSITIVE
from clawback.actions.network_block_destination import ACTION as BLOCK_DESTINATION
from clawback.actions.tool_deny import ACTION as DENY_TOOL
from clawback.model import Incident, Receipt, ScopeKind
from clawback.playbook import Respond
from clawback.playbooks._identify import why

__all__ = ["block_destinations", "deny_tools", "queue_sensitive"]

_MOST = 8  # an agent can make up any number; what it did most recently is isolated with it anyway


def block_destinations(respond: Respond, incident: Incident, detectors: str) -> tuple[Receipt, ...]:
    """For everybody: where one agent's data went, no other's goes. `detectors` is what their ids begin with."""
    places = dict.fromkeys(x.resource for x in incident.findings if x.detector.startswith(detectors))
    return tuple(
        respond(
            BLOCK_DESTINATION,
            BLOCK_DESTINATION.params(scope=ScopeKind.ALL, host=host.strip("[]"), port=port, reason=why(incident)),
        )
        for host, port in (_split(place) for place in [*places][:_MOST])
        if host
    )


def deny_tools(respond: Respond, incident: Incident, detectors: str) -> tuple[Receipt, ...]:
    """For this agent: the tools that it should not have called, where it called them."""
    found = dict.fromkeys(x.resource for x in incident.findings if x.detector.startswith(detectors))
    made: list[Receipt] = []
    for resource in [*found][:_MOST]:
        tool, _, place = resource.rpartition("@")
        host, port = _split(place)
        if not tool or not host or tool == "tools":  # a search for any tool names none
            continue
        params = DENY_TOOL.params(
            scope=ScopeKind.AGENT, of=incident.agent, tool=tool, host=host, port=port, reason=why(incident)
        )
        made.append(respond(DENY_TOOL, params))
    return tuple(made)


def queue_sensitive(respond: Respond, incident: Incident) -> Receipt:
    """For everybody: what is found sensitive on its way to a cloud model waits, and is refused in the end."""
    return respond(QUEUE_SENSITIVE, QUEUE_SENSITIVE.params(scope=ScopeKind.ALL, reason=why(incident)))


def _split(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return (host, int(port)) if port.isascii() and port.isdigit() and int(port) <= 65_535 else ("", 0)
