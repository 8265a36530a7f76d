"""Events that a drill writes into the telemetry itself, where no agent can be made to cause them: `events.jsonl`.

One JSON object in a line:

    {"at": -330, "event": "Lifecycle", "about": "nothing", "fields": {"source": "routing", "status": "unavailable", …}}

`at` is seconds from the drill's trigger: what is not after it is written at once, with the time it had; the rest when
it is due. `event` is a type of `clawback.model.events`, `fields` its own and the shared ones; `source`, `severity` and
`disposition` by name. `about`: `agent` (the drill's, unless told), `bystander`, or `nothing`. With `times` and `every`
(seconds) a line is several events, and `{n}` in its strings counts them. `then: resume`, on a line of its own with
`at`, is what a person does by `clawback resume`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clawback import model
from clawback.errors import InvalidInput
from clawback.model import Disposition, Event, Severity, Source

__all__ = ["Line", "build", "read_script"]

_KINDS: dict[str, type[Event]] = {
    name: kind
    for name in model.__all__
    if isinstance(kind := getattr(model, name), type) and issubclass(kind, Event) and kind is not Event
}


class Line(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: float = 0.0
    event: str = ""
    about: Literal["agent", "bystander", "nothing"] = "agent"
    fields: dict[str, Any] = Field(default_factory=dict)
    times: int = Field(1, ge=1, le=1000)
    every: float = Field(0.0, ge=0)
    then: Literal["", "resume"] = ""


def read_script(path: Path) -> tuple[Line, ...]:
    """Its lines in the order of their times, each found to be an event. `InvalidInput` names file and line."""
    lines: list[Line] = []
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = Line.model_validate(json.loads(text))
            if not line.then:
                build(line, 0, 1, agent="a", instance="a-1", policy="p", version=1)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InvalidInput(f"{path}:{number}: {key}: {first['msg']}", hint="see docs/drills.md") from None
        except (ValueError, KeyError, IndexError) as error:
            raise InvalidInput(f"{path}:{number}: {error}", hint="see docs/drills.md") from None
        lines += [
            line.model_copy(update={"at": line.at + n * line.every, "times": 1, "fields": _numbered(line.fields, n)})
            for n in range(line.times)
        ]
    return tuple(sorted(lines, key=lambda line: line.at))


def build(line: Line, time_ns: int, sequence: int, *, agent: str, instance: str, policy: str, version: int) -> Event:
    """The event at this time. `ValidationError` or `ValueError` for what is none."""
    kind = _KINDS.get(line.event)
    if kind is None:
        raise ValueError(f"event: {line.event!r} is none of {', '.join(sorted(_KINDS))}")
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(line.fields) - known):
        raise ValueError(f"fields: {kind.__name__} has no {unknown[0]!r}")
    fields = dict(line.fields)
    for name, named in (("severity", Severity), ("disposition", Disposition)):
        if isinstance(fields.get(name), str):
            fields[name] = named[str(fields[name]).upper()]
    whom = {"agent": agent, "instance": instance} if line.about != "nothing" else {}
    shared = {"time_ns": time_ns, "writer": "drill", "sequence": sequence, "policy": policy, "policy_version": version}
    event = TypeAdapter(kind).validate_python({"source": Source.SANDBOX, **shared, **whom, **fields})
    assert isinstance(event, Event)  # noqa: S101 - for the type checker: the adapter is of that kind
    return event


def _numbered(fields: dict[str, Any], n: int) -> dict[str, Any]:
    return {name: value.replace("{n}", str(n)) if isinstance(value, str) else value for name, value in fields.items()}
