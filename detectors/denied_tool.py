"""An agent calls tools that its policy does not let it call."""

from __future__ import annotations

from collections import OrderedDict

from clawback.detector import Hit, detector
from clawback.model import HttpActivity, Level, Severity

__all__ = ["DETECTOR"]

DIFFERENT = 3
WITHIN_NS = 10 * 60 * 1_000_000_000
_TOOLS = 64
_CALL = "tools/call "


class Refused:
    """The refused tools tried last, each with its last time and event."""

    __slots__ = ("tools",)

    def __init__(self) -> None:
        self.tools: OrderedDict[str, tuple[int, str]] = OrderedDict()


@detector(
    id="tools.denied-call",
    title="Call of a denied tool",
    reads={HttpActivity},
    severity=Severity.HIGH,
    technique="AML.T0053",
    reflex=Level.FREEZE,
    attack=("T1106", "T1078"),
    atlas=("AML.T0053", "AML.T0086"),
    asi=("ASI02", "ASI10"),
    seed_asi=("ASI-01",),
    memory=Refused,
)
def denied_tool(event: HttpActivity, refused: Refused) -> Hit | None:
    """One call of a tool that a rule denies by name: somebody foresaw it and said no. Of tools that merely no rule
    allows, three different ones within ten minutes: a model often guesses one that is not there, and seldom searches.
    """
    if not event.blocked:
        return None
    tools = [call.removeprefix(_CALL) for call in event.calls if call.startswith(_CALL)]
    if not tools:
        return None
    where = f"{event.host.lower().rstrip('.')}:{event.port}"
    if event.reason.endswith("denied by rule"):
        named = event.reason.removeprefix(_CALL).removesuffix(" denied by rule")
        tool = named if named in tools else tools[0]
        return Hit(
            resource=f"{tool}@{where}",
            summary=f"refused call of {tool} at {where}, which rule {event.rule} denies",
        )
    for tool in tools:
        refused.tools.pop(tool, None)
        refused.tools[tool] = (event.time_ns, event.uid)
        if len(refused.tools) > _TOOLS:
            refused.tools.popitem(last=False)
    recent = {name: uid for name, (at, uid) in refused.tools.items() if event.time_ns - WITHIN_NS < at <= event.time_ns}
    if len(recent) < DIFFERENT:
        return None
    return Hit(
        resource=f"tools@{where}",
        summary=f"{len(recent)} different tools refused within ten minutes: {', '.join([*recent][-8:])}",
        events=tuple(uid for uid in recent.values() if uid != event.uid)[-16:],
    )


DETECTOR = denied_tool
