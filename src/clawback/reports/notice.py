"""A message about an incident: drawn from its record, redacted and short, and made inert for where it is shown.

The template is `runbooks/notices/agent-incident.txt.j2`; each channel renders it with its own way to make a text inert,
so that forgetting to escape is not possible there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from clawback.model import Incident
from clawback.reports.escape import defanged, plain
from clawback.reports.facts import Step, draw
from clawback.reports.times import first_event_ns
from clawback.world.notices import Notice

__all__ = ["mrkdwn", "notice", "render", "text"]

_LINES = 8
_SHORT, _LONG = 120, 240


def notice(incident: Incident, *, over: bool = False) -> Notice:
    """What there is to say now: the newest containment and credential steps first, then where the ticket is."""
    facts = draw(incident)
    steps = [*facts.containment, *facts.credential_steps]
    return Notice(
        incident=plain(facts.id, 64),
        title=plain(facts.title, _LONG),
        severity=incident.severity.name.lower(),
        agent=plain(incident.agent, _SHORT),
        status=plain(facts.status, _LONG),
        at=datetime.fromtimestamp(first_event_ns(incident) / 1e9, UTC).isoformat(timespec="milliseconds"),
        drill=incident.drill,
        over=over,
        lines=tuple(plain(line, _LONG) for line in [*map(_line, steps[-_LINES:]), *_ticket(incident)]),
    )


def _line(step: Step) -> str:
    return f"{step.action} {step.state}{f' ({step.enforcement})' if step.enforcement else ''}: {step.proof}"


def _ticket(incident: Incident) -> list[str]:
    for receipt in reversed(incident.receipts):
        where = receipt.outcome.get("where") if receipt.action == "ticket.write" else None
        if where:
            return [f"ticket: {where.get('tracker') or where.get('markdown')}"]
    return []


@cache
def _template(inert: Callable[[str], str]) -> Template:
    def finalise(value: Any) -> str:
        return inert(str(value))

    environment = Environment(
        autoescape=False,  # noqa: S701 - not HTML: `finalize` makes everything inert for its channel
        undefined=StrictUndefined,
        finalize=finalise,
    )
    place = resources.files("clawback.runbooks").joinpath("notices", "agent-incident.txt.j2")
    return environment.from_string(place.read_text("utf-8"))


def render(of: Notice, inert: Callable[[str], str]) -> str:
    """The message, a line for each fact, every text in it by way of `inert`."""
    return _template(inert).render(n=of)


def text(value: str) -> str:
    """For a place that shows text as it is: no link, no mention, so that nothing in it can be followed by mistake."""
    return defanged(value)


def mrkdwn(value: str) -> str:
    """For Slack's mrkdwn: a code span, in which nothing is formatted, of entities, with which nothing is linked.

    `&`, `<` and `>` are all that Slack lets be escaped; a backtick would end the span, so it becomes an apostrophe.
    """
    shown = defanged(value).replace("`", "'")
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(character, entity)
    return f"`{shown or '-'}`"
