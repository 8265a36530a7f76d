"""What Prefect offers for launch: every playbook, every runbook with its typed parameters, and every drill.

A runbook's front matter gives the parameters: `NAME: description`, or `NAME: {description, type, pattern, default,
required, enum}` with JSON Schema's words. Three names mean something here: AGENT and INCIDENT say what is responded to,
one of them at least, and REASON goes on record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clawback.catalog import Runbook
from clawback.errors import InvalidInput
from clawback.playbook import Playbook

__all__ = ["Declared", "declare"]

_KNOWN: dict[str, dict[str, Any]] = {
    "AGENT": {"description": "the agent's stable id", "pattern": r"^[A-Za-z0-9._:-]{0,128}$"},
    "INCIDENT": {"description": "an open incident to go on with", "pattern": r"^(INC-[0-9]{8}-[0-9A-Z]{6})?$"},
    "REASON": {"description": "why; it goes on record", "maxLength": 500},
}
_WORDS = frozenset({"description", "type", "pattern", "default", "enum", "minimum", "maximum", "maxLength", "format"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One deployment. `playbook` or `drill` is what a run of it runs; `cron` is its schedule, if it has one."""

    flow: str
    name: str
    description: str
    schema: Mapping[str, Any]
    playbook: str = ""
    drill: str = ""
    cron: str = ""

    @property
    def version(self) -> str:
        """Changes with anything that Prefect is told of it, but for the schedule, which is people's to change there."""
        told = [self.flow, self.name, self.description, self.schema]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def declare(
    playbooks: Mapping[str, Playbook], runbooks: Mapping[str, Runbook], schedules: Mapping[str, str]
) -> tuple[Declared, ...]:
    """All of them. `schedules`: a drill's name → cron. `InvalidInput` for one that no runbook names."""
    books = [
        Declared(
            flow=book.id,
            name="playbook",
            description=f"{book.title}\n\n{book.doc}",
            schema=_schema({}),
            playbook=book.id,
        )
        for book in playbooks.values()
    ]
    faces = [
        Declared(
            flow=one.id,
            name="runbook",
            description=f"# {one.title}\n\n{one.text}",
            schema=_schema(one.facts.get("parameters") or {}),
            playbook=one.playbook,
        )
        for one in runbooks.values()
    ]
    drills = sorted({one.drill for one in runbooks.values()})
    if strangers := sorted(set(schedules) - set(drills)):
        raise InvalidInput(f"prefect.drills: no runbook names the drill {strangers[0]!a}", hint="`clawback drill list`")
    rehearsals = [
        Declared(
            flow="drill",
            name=name,
            description=f"Rehearse {name} in disposable surroundings: `clawback drill run {name}`.",
            schema={"type": "object", "properties": {}, "required": []},
            drill=name,
            cron=schedules.get(name, ""),
        )
        for name in drills
    ]
    return (*books, *faces, *rehearsals)


def _schema(parameters: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    for name in dict.fromkeys((*parameters, *_KNOWN)):
        given = parameters.get(name, {})
        words: dict[str, Any] = {"description": given} if isinstance(given, str) else dict(given)
        if words.pop("required", False):
            required.append(name)
        kept = {key: value for key, value in words.items() if key in _WORDS}
        properties[name] = {
            "type": "string",
            **_KNOWN.get(name, {}),
            **({"default": ""} if name not in required else {}),
            **kept,
            "title": name,
            "position": len(properties),
        }
    return {"title": "Parameters", "type": "object", "properties": properties, "required": required}
