"""An incident as people read it in a terminal: what happened in order, what was done and seen, and the times."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clawback.journal import SETTLED
from clawback.model import Enforcement, Incident, IncidentStatus, Receipt, ReceiptState
from clawback.reports.escape import plain
from clawback.reports.facts import draw
from clawback.reports.times import first_event_ns, times_ms

__all__ = ["render", "render_times"]

_STYLE = {
    ReceiptState.VERIFIED: "green",
    ReceiptState.REVERTED: "green",
    ReceiptState.ALREADY_ABSENT: "green",
    ReceiptState.FAILED: "bold red",
    ReceiptState.UNVERIFIED: "bold red",
    ReceiptState.REVERT_FAILED: "bold red",
    ReceiptState.ORPHANED: "bold red",
    ReceiptState.ACCEPTED: "bold yellow",
}


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _table(*columns: tuple[str, bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, right in columns:
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table


def render_times(incident: Incident) -> Table:
    """The table of times: milliseconds since the first rogue event, `-` where nothing was observed."""
    table = _table(("time", False), ("ms", True))
    for name, value in times_ms(incident).items():
        table.add_row(name.replace("_", " "), _ms(value))
    return table


def _state(receipt: Receipt) -> str:
    """The state; of a step that is not settled, how often it was tried."""
    tried = f" ({receipt.attempts} attempts)" if receipt.attempts > 1 and receipt.state not in SETTLED else ""
    return f"{receipt.state.value}{tried}"


def _receipts(incident: Incident) -> Table:
    zero = first_event_ns(incident)
    table = _table(
        ("ms", True), ("phase", False), ("action", False), ("state", False), ("enforced", False), ("", False)
    )
    for x in incident.receipts:
        at = x.verified_ns or x.applied_ns or x.intended_ns
        enforced = x.enforcement.value if x.enforcement else "-"
        table.add_row(
            _ms((at - zero) / 1e6 if at else None),
            x.phase.value,
            plain(x.action, 60),
            Text(_state(x), _STYLE.get(x.state, "yellow")),
            Text(enforced, "green" if x.enforcement is Enforcement.FULL else "yellow"),
            Text(plain(x.error or x.proof, 300)),
        )
    return table


def render(incident: Incident) -> RenderableType:
    """The whole incident for `console.print`. Nothing in it is taken as markup, whoever wrote it."""
    closed = incident.status is IncidentStatus.CLOSED
    head = Text.assemble(
        (incident.id, "bold"),
        f"  agent {plain(incident.agent, 128)} instance {plain(incident.instance, 64)}  ",
        (incident.severity.name.lower(), "bold"),
        "  ",
        (incident.status.value, "green" if closed else "bold yellow"),
        f" in {incident.phase.value}  orchestration {incident.orchestration.value}",
        ("  DRILL", "bold magenta") if incident.drill else "",
    )
    timeline = _table(("ms", True), ("phase", False), ("what", False), ("detail", False))
    for line in draw(incident).timeline:
        timeline.add_row(_ms(line.at_ms), line.phase, Text(plain(line.what, 120)), Text(plain(line.detail, 300)))
    gap = Text("")
    return Group(head, gap, timeline, gap, _receipts(incident), gap, render_times(incident))
