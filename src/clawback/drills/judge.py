"""Says whether a drill's end is what it expects, problem by problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clawback.drills.declaration import Drill
from clawback.model import Incident, IncidentStatus

__all__ = ["Seen", "problems"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was observed beside the incident: bytes that the agent sent and the sink received, then and a while later;
    that the agent works as it should; that the bystander does, where there is one.
    """

    uploaded: int
    received: int
    still: int
    working: bool
    bystander: bool


def problems(drill: Drill, incident: Incident, seen: Seen) -> Iterator[str]:
    """None if it passed."""
    fired = {finding.detector for finding in incident.findings}
    yield from (f"{name} did not fire" for name in drill.expect.findings if name not in fired)
    for action, state in drill.expect.receipts.items():
        states = [receipt.state.value for receipt in incident.receipts if receipt.action == action]
        if not states:
            yield f"{action} was not run"
        elif set(states) != {state}:
            yield f"{action} is {', '.join(states)}, not {state}"
    # Of several findings any may come first, and the first one chooses the playbook.
    if len(drill.expect.findings) == 1 and incident.playbook != drill.playbook:
        yield f"playbook {incident.playbook} answered, not {drill.playbook}"
    if not incident.drill:
        yield f"{incident.id} is not marked as a drill"
    if incident.status is not IncidentStatus.CLOSED:
        yield f"{incident.id} is still open"
    if drill.world.sink and seen.received == 0:
        yield "the upload never reached the sink, so that stopping it proves nothing"
    if seen.still != seen.received:
        yield f"the upload went on: {seen.still - seen.received} bytes more reached the sink"
    if not seen.working:
        yield "the relaunched agent does not work" if drill.expect.relaunched else "the agent does not work any more"
    if not seen.bystander:
        yield f"{drill.world.bystander} is still held or gone"
