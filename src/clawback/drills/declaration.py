"""What a drill is: a folder with a `README.md` (the timeline), a `drill.yaml`, and the agent or the events it needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clawback.errors import InvalidInput, NotFound

__all__ = ["AgentScript", "Drill", "Expectations", "find", "folder", "load"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentScript(_Strict):
    """`agent:`: the program that goes rogue, and what it is given.

    `widened` replaces the policy before the agent goes rogue, unreviewed; `lure` is the file put into its inbox.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    program: str
    policy: str
    widened: str | None = None
    tenant: str = ""
    team: str = ""
    lure: str


class Surroundings(_Strict):
    """`world:`: `sink` is the host name of a server in a network of its own that counts what reaches it."""

    sink: str


class Expectations(_Strict):
    """`expect:`: detectors that must have fired, and the state that each named action's receipts must have."""

    findings: tuple[str, ...]
    receipts: dict[str, str]


class Limits(_Strict):
    """`limits:`: `seconds` from the lure to the incident's end."""

    seconds: float = Field(60.0, gt=0, le=600)


class _File(_Strict):
    title: str
    playbook: str
    agent: AgentScript
    world: Surroundings
    expect: Expectations
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A drill as read from its folder."""

    name: str
    folder: Path
    title: str
    playbook: str
    agent: AgentScript
    world: Surroundings
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
        raise InvalidInput(f"{file}: {key}: {first['msg']}", hint="see docs/drills.md") from None
    for name in (read.agent.program, read.agent.policy, read.agent.widened, read.agent.lure, "README.md"):
        if name is not None and not (path / name).is_file():
            raise InvalidInput(f"{file}: there is no {name} beside it", hint="add the file or mend the name")
    return Drill(
        name=path.name,
        folder=path.resolve(),
        title=read.title,
        playbook=read.playbook,
        agent=read.agent,
        world=read.world,
        expect=read.expect,
        limits=read.limits,
    )
