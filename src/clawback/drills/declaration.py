"""What a drill is: a folder with a `README.md` (the timeline), a `drill.yaml`, and the agent or the events it needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clawback.drills.script import Line, read_script
from clawback.errors import InvalidInput, NotFound

__all__ = ["AgentScript", "Drill", "Expectations", "find", "folder", "load"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentScript(_Strict):
    """`agent:`: the program that goes rogue, and what it is given.

    `widened` replaces the policy before the agent goes rogue, unreviewed; `lure` is the file put into its inbox.
    `placeholder`: its Vault token is given as a placeholder, which the gateway fills in. In the policies and the lure
    `{agent}` becomes its id, `{vault}` and `{aws}` those servers' ports.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    program: str
    policy: str
    widened: str | None = None
    tenant: str = ""
    team: str = ""
    lure: str | None = None
    placeholder: bool = False


class Surroundings(_Strict):
    """`world:`: `sink` is the host name of a server in a network of its own that counts what reaches it; `tools` that
    of an MCP server on port 8931, which answers every call; `bystander` the id of a second agent, which does no wrong.
    """

    sink: str | None = None
    tools: str | None = None
    bystander: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")


class Expectations(_Strict):
    """`expect:`: detectors that must have fired, and the state that each named action's receipts must have.

    subject     whom the incident is about, where not the agent: `component:…`, `policy:…`
    relaunched  a new instance works at the end; else the one that there was does
    """

    findings: tuple[str, ...]
    receipts: dict[str, str]
    subject: str = ""
    relaunched: bool = True


class Limits(_Strict):
    """`limits:`: `seconds` from the trigger to the incident's end."""

    seconds: float = Field(60.0, gt=0, le=600)


class _File(_Strict):
    title: str
    playbook: str
    agent: AgentScript
    world: Surroundings = Surroundings()
    events: str | None = None
    expect: Expectations
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _triggered(self) -> Self:
        if not (self.agent.lure or self.events or self.agent.widened):
            raise ValueError("nothing happens: name agent.lure, agent.widened or events")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A drill as read from its folder. `script` are the lines of its `events` file."""

    name: str
    folder: Path
    title: str
    playbook: str
    agent: AgentScript
    world: Surroundings
    script: tuple[Line, ...]
    expect: Expectations
    limits: Limits


def folder() -> Path:
    """Where drills are: `CLAWBACK_DRILLS`, else those that came with Clawback."""
    named = os.environ.get("CLAWBACK_DRILLS")
    return Path(named) if named else Path(__file__).parent.parent / "tabletop"


def find(root: Path | None = None) -> tuple[Drill, ...]:
    """All drills, by name. `InvalidInput` for the first that is not sound."""
    where = root or folder()
    return tuple(_read(file.parent) for file in sorted(where.glob("*/drill.yaml")))


def load(name: str, root: Path | None = None) -> Drill:
    """One drill by its folder's name."""
    where = root or folder()
    if Path(name).name != name or not (where / name / "drill.yaml").is_file():
        raise NotFound(f"no drill {name!r}", hint="clawback drill list")
    return _read(where / name)


def _read(path: Path) -> Drill:
    file = path / "drill.yaml"
    try:
        data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        read = _File.model_validate(data)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise InvalidInput(f"{where}: not YAML", hint="check the indentation there") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{file}: {key or 'drill'}: {first['msg']}", hint="see docs/drills.md") from None
    script = read.agent
    for name in (script.program, script.policy, script.widened, script.lure, read.events, "README.md"):
        if name is not None and not (path / name).is_file():
            raise InvalidInput(f"{file}: there is no {name} beside it", hint="add the file or mend the name")
    return Drill(
        name=path.name,
        folder=path.resolve(),
        title=read.title,
        playbook=read.playbook,
        agent=script,
        world=read.world,
        script=read_script(path / read.events) if read.events else (),
        expect=read.expect,
        limits=read.limits,
    )
