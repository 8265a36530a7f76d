"""An incident's ticket: as Markdown from the template in `runbooks/tickets/`, and as a request to Jira Cloud REST v3.

Both say the same, from `clawback.reports.facts`. In the template everything is escaped unless a filter of this module
made it: forgetting to escape is not possible there.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from clawback.model import Incident
from clawback.reports import adf
from clawback.reports.escape import code, inert, plain, source
from clawback.reports.facts import Facts, draw

__all__ = ["jira", "jira_request", "markdown", "summary"]

_SUMMARY_LIMIT = 255  # Jira's; newlines are refused as well


class _Made(str):
    """Markdown that a filter made and that must not be escaped again."""

    __slots__ = ()


def _finalise(value: Any) -> str:
    return value if isinstance(value, _Made) else inert(value, 2000)


def _code(value: Any, limit: int = 500) -> _Made:
    return _Made(code(value, limit))


def _cell(value: Any) -> _Made:
    # Inside a table even a code span ends at a pipe.
    return _Made(code(value).replace("|", "\\|"))


def _source(value: Any) -> _Made:
    return _Made(source(value))


def _ms(value: float | None) -> _Made:
    return _Made("-" if value is None else f"{value:,.1f}")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=False,  # noqa: S701 - not HTML: `finalize` escapes everything for Markdown, HTML's characters too
        undefined=StrictUndefined,
        finalize=_finalise,
        keep_trailing_newline=True,
    )
    environment.filters.update(code=_code, cell=_cell, ms=_ms, source=_source)
    text = resources.files("clawback.runbooks").joinpath("tickets", "agent-incident.md.j2").read_text("utf-8")
    return environment.from_string(text)


def markdown(incident: Incident) -> str:
    """The ticket as GitHub-flavoured Markdown."""
    return _template().render(f=draw(incident))


def summary(facts: Facts) -> str:
    """One line, at most 255 characters; the incident's id is never the part that is cut."""
    drill = "DRILL " if facts.incident.drill else ""
    severity = facts.incident.severity.name.lower()
    head = f"{drill}{facts.id} [{severity}] agent {plain(facts.incident.agent, 60)}: "
    return head + plain(facts.title, _SUMMARY_LIMIT - len(head))


def jira_request(incident: Incident, *, project: str = "SEC", issue_type: str = "Task") -> dict[str, Any]:
    """The body of `POST /rest/api/3/issue`. The incident's id is a label and a property: updates find it."""
    facts = draw(incident)
    about = {
        "id": incident.id,
        "agent": plain(incident.agent, 128),
        "phase": incident.phase.value,
        "status": incident.status.value,
    }
    labels = ["clawback", incident.id, f"severity-{incident.severity.name.lower()}"]
    return {
        "fields": {
            "project": {"key": project},
            "issuetype": {"name": issue_type},
            "summary": summary(facts),
            "description": adf.document(facts),
            "labels": [*labels, "drill"] if incident.drill else labels,
        },
        "properties": [{"key": "clawback.incident", "value": about}],
    }


def jira(incident: Incident, *, project: str = "SEC", issue_type: str = "Task") -> str:
    """The same as JSON text."""
    return json.dumps(jira_request(incident, project=project, issue_type=issue_type), ensure_ascii=False, indent=2)
