"""Finds every action, detector, playbook and runbook by walking their folders, and refuses a set that is not whole.

A Python unit is a module that exports `ACTION`, `DETECTOR` or `PLAYBOOK`; files whose name begins with `_` are helpers.
A runbook is a Markdown file with YAML front matter. Adding a unit edits no other file.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

from clawback.action import Action, Params, Reversibility
from clawback.detector import Detector
from clawback.errors import ClawbackError, InvalidInput
from clawback.playbook import Playbook

__all__ = ["HEADINGS", "Catalog", "Runbook", "load", "read_runbook"]

HEADINGS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Restore")

_ID = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_ROOT = Path(__file__).parent
_FUNCTIONS = ("key", "plan", "capture", "apply", "verify")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runbook:
    """What an analyst reads: its front matter (`playbook`, `detectors`, `drill` and more, in `facts`) and its text."""

    id: str
    title: str
    playbook: str
    detectors: tuple[str, ...]
    drill: str
    text: str
    path: Path
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything there is, by id. `files` says where each unit comes from, by kind and id."""

    actions: Mapping[str, Action[Any]]
    detectors: Mapping[str, Detector]
    playbooks: Mapping[str, Playbook]
    runbooks: Mapping[str, Runbook]
    files: Mapping[tuple[str, str], Path]

    def answering(self, detector: str) -> Playbook | None:
        """The playbook that a detector's findings start; None for an id that is not in the catalogue."""
        return next((book for book in self.playbooks.values() if detector in book.answers), None)


@lru_cache(maxsize=1)
def load() -> Catalog:
    """The installed catalogue, checked; read once. `InvalidInput` names the file and key of what is wrong."""
    return read(_ROOT)


def read(root: Path, package: str = "clawback") -> Catalog:
    """The catalogue of another folder, whose `actions` … are importable as `PACKAGE.actions` …; checked, not cached."""
    files: dict[tuple[str, str], Path] = {}
    actions: dict[str, Action[Any]] = _walk(root, package, Action, files)
    detectors = _walk(root, package, Detector, files)
    playbooks = _walk(root, package, Playbook, files)
    runbooks: dict[str, Runbook] = {}
    for path in sorted((root / "runbooks").glob("*.md")):
        if path.name.startswith("_") or path.stem.upper() == "README":
            continue
        runbook = read_runbook(path)
        runbooks[runbook.id] = runbook
        files["runbooks", runbook.id] = path
    for name, action in actions.items():
        _check_action(action, files["actions", name])
    _check_ring(detectors, playbooks, runbooks, files)
    return Catalog(
        actions=MappingProxyType(actions),
        detectors=MappingProxyType(detectors),
        playbooks=MappingProxyType(playbooks),
        runbooks=MappingProxyType(runbooks),
        files=MappingProxyType(files),
    )


def _walk(root: Path, package: str, kind: type[T], files: dict[tuple[str, str], Path]) -> dict[str, T]:
    folder, name = f"{kind.__name__.lower()}s", kind.__name__.upper()
    units: dict[str, T] = {}
    for path, unit in _exports(root / folder, f"{package}.{folder}", name):
        if not isinstance(unit, kind):
            raise _wrong(path, name, f"is no {kind.__name__}", f"export {name} = {kind.__name__}(…)")
        identity: str = unit.id  # type: ignore[attr-defined]  # all three kinds have one
        if not _ID.fullmatch(identity):
            raise _wrong(path, "id", f"{identity!a} is no id", "lower case words joined by `.` and `-`")
        if identity in units:
            raise _wrong(path, "id", f"{identity} is already taken by {files[folder, identity].name}", "ids are unique")
        units[identity] = unit
        files[folder, identity] = path
    return units


def _exports(folder: Path, package: str, name: str) -> Iterator[tuple[Path, Any]]:
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            module = importlib.import_module(f"{package}.{path.stem}")
        except ClawbackError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"{path}: does not import: {type(error).__name__}: {error}", hint="a unit must import on its own"
            ) from error
        unit = getattr(module, name, None)
        if unit is None:
            raise _wrong(path, name, "is missing", f"export {name}, or begin a helper's file name with _")
        # A family of units that differ only in what they are about may share a file.
        for one in unit if isinstance(unit, (tuple, list)) else (unit,):
            yield path, one


def _check_action(action: Action[Any], path: Path) -> None:
    for key in ("summary", "scope", "openc2"):
        if not getattr(action, key).strip():
            raise _wrong(path, key, "is empty", "say it; a responder reads it before running the action")
    if not action.needs or not all(":" in need for need in action.needs):
        raise _wrong(path, "needs", "names no capability", "list what it uses as part:verb")
    params: Any = action.params
    if not isinstance(params, type) or not issubclass(params, Params):
        raise _wrong(path, "params", "is no Params class", "derive it from clawback.action.Params")
    for key in _FUNCTIONS:
        if not callable(getattr(action, key)):
            raise _wrong(path, key, "is not callable", "give a function")
    undo = (action.revert, action.verify_reverted)
    if action.reversibility is Reversibility.IRREVERSIBLE:
        if any(undo):
            raise _wrong(path, "reversibility", "is irreversible, and there is a revert", "one of the two is untrue")
    elif not all(undo):
        raise _wrong(
            path,
            "revert" if action.revert is None else "verify_reverted",
            f"is missing and the action is {action.reversibility.value}",
            "give both, or say irreversible",
        )
    if action.reflex and action.reversibility is not Reversibility.REVERSIBLE:
        raise _wrong(
            path, "reflex", f"is set and the action is {action.reversibility.value}", "reflexes are reversible"
        )


def _check_ring(
    detectors: dict[str, Detector],
    playbooks: dict[str, Playbook],
    runbooks: dict[str, Runbook],
    files: Mapping[tuple[str, str], Path],
) -> None:
    answered: dict[str, str] = {}
    for name, book in playbooks.items():
        path = files["playbooks", name]
        for detector in sorted(book.answers):
            if detector not in detectors:
                raise _wrong(path, "answers", f"{detector} is no detector", "see detectors/")
            if detector in answered:
                raise _wrong(path, "answers", f"{detector} is answered by {answered[detector]} already", "one of them")
            answered[detector] = name
        if strangers := sorted(book.covers - playbooks.keys()):
            raise _wrong(path, "covers", f"{strangers[0]} is no playbook", "see playbooks/")
        if book.runbook not in runbooks:
            raise _wrong(path, "runbook", f"{book.runbook} is not in runbooks/", "every playbook has a human face")
    for name in detectors:
        if name not in answered:
            raise _wrong(files["detectors", name], "id", f"no playbook answers {name}", "add it to one's `answers`")
    for name, runbook in runbooks.items():
        path = files["runbooks", name]
        if runbook.playbook not in playbooks:
            raise _wrong(path, "playbook", f"{runbook.playbook} is not in playbooks/", "name an existing one")
        if strangers := sorted(set(runbook.detectors) - set(detectors)):
            raise _wrong(path, "detectors", f"{strangers[0]} is no detector", "see detectors/")


def read_runbook(path: Path) -> Runbook:
    """Read one runbook. `InvalidInput` names the file, and the line or key."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    parts = re.split(r"^---[ \t]*$", text, maxsplit=2, flags=re.MULTILINE)
    if len(parts) != 3 or parts[0].strip():
        raise InvalidInput(f"{path}:1: no front matter", hint="begin the file with YAML between two lines of ---")
    try:
        facts = yaml.load(parts[1], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise InvalidInput(f"{path}:{line}: front matter is not YAML", hint="check indentation and quotes") from None
    if not isinstance(facts, dict):
        raise InvalidInput(f"{path}:1: front matter is no mapping", hint="key: value lines")
    for key in ("title", "playbook", "drill"):
        if not isinstance(facts.get(key), str) or not facts[key].strip():
            raise _wrong(path, key, "is missing", "front matter names title, playbook, detectors and drill")
    found = facts.get("detectors")
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise _wrong(path, "detectors", "is no list of detector ids", "detectors: [id, …]")
    headings = re.findall(r"^## +(.+?)\s*$", parts[2], flags=re.MULTILINE)
    wanted = [heading for heading in headings if heading in HEADINGS]
    if wanted != list(HEADINGS):
        missing = next((heading for heading in HEADINGS if heading not in headings), None)
        problem = f"## {missing} is missing" if missing else "the headings are out of order or repeated"
        raise InvalidInput(f"{path}: {problem}", hint=" / ".join(HEADINGS))
    return Runbook(
        id=path.stem,
        title=facts["title"],
        playbook=facts["playbook"],
        detectors=tuple(found),
        drill=facts["drill"],
        text=parts[2].strip() + "\n",
        path=path,
        facts=MappingProxyType(facts),
    )


def _wrong(path: Path, key: str, problem: str, hint: str) -> InvalidInput:
    return InvalidInput(f"{path}: {key}: {problem}", hint=hint)
