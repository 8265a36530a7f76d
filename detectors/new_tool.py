"""An agent calls a tool, or a connector, that it has never used before."""

from __future__ import annotations

from collections import OrderedDict

from clawback.detector import Hit, detector
from clawback.model import HttpActivity, Severity

__all__ = ["DETECTOR"]

BASELINE_NS = 72 * 3_600 * 1_000_000_000  # the source documents' period for what counts as known
_MOST = 1024


class Habits:
    """When the agent was first seen, and which tools and connectors it used; what falls out counts as new again."""

    __slots__ = ("connectors", "since", "tools")

    def __init__(self) -> None:
        self.since = 0
        self.tools: OrderedDict[str, None] = OrderedDict()
        self.connectors: OrderedDict[str, None] = OrderedDict()


@detector(
    id="tools.new-call",
    title="Tool or connector used for the first time",
    reads={HttpActivity},
    severity=Severity.MEDIUM,
    technique="T1059",
    attack=("T1059", "T1106"),
    atlas=("AML.T0053",),
    asi=("ASI02", "ASI04"),
    seed_asi=("ASI-01",),
    memory=Habits,
)
def new_tool(event: HttpActivity, habits: Habits) -> Hit | None:
    """Of allowed calls: after 72 hours an agent's tools are known, and one that its policy allows and it never used is
    worth a look, not a stop. Refused calls are `tools.denied-call`'s. A connector is where tools are called: host and
    port.
    """
    if not habits.since or event.time_ns < habits.since:
        habits.since = event.time_ns
    tools = [call.removeprefix("tools/call ") for call in event.calls if call.startswith("tools/call ")]
    if event.blocked or not tools:
        return None
    where = f"{event.host.lower().rstrip('.')}:{event.port}"
    connector = _first(habits.connectors, where)
    fresh = [tool for tool in tools if _first(habits.tools, f"{tool}@{where}")]
    if event.time_ns - habits.since < BASELINE_NS or not fresh:
        return None
    if connector:
        return Hit(
            resource=f"connector {where}", summary=f"first call at the connector {where}: {', '.join(fresh[:8])}"
        )
    return Hit(resource=f"{fresh[0]}@{where}", summary=f"first call of {', '.join(fresh[:8])} at {where}")


def _first(known: OrderedDict[str, None], name: str) -> bool:
    if name in known:
        known.move_to_end(name)
        return False
    known[name] = None
    if len(known) > _MOST:
        known.popitem(last=False)
    return True


DETECTOR = new_tool
