"""Why nothing may be allowed an agent: it is held, or everything escalated was ordered refused. Both outlive us."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from clawback.enforcement import durable
from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import InvalidInput
from clawback.model import Level

__all__ = ["Orders"]

_LEVELS = re.compile(r'"levels"\s*:\s*\[([^\]]*)\]')
_DEEPEST = 64
_CLOCK_STEP_NS = 100_000_000


def _ordered(path: Path) -> dict[str, Any]:
    """The JSON object of a file of orders, as it was written; empty where it is none, or is not any more."""
    try:
        found = json.loads(durable.read(path))
    except (InvalidInput, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Orders:
    """Orders are in `STATE/supervise/refused.json`, agent → by whom, flushed before they are acknowledged.

    Holds and halts are the core's, in `STATE/holds/AGENT.json`, `STATE/holds/together/ID.json` (agent → its orders, no
    seal among them) and `STATE/halts/ID.json`, and read from there: a core that is gone still holds. A file that cannot
    be understood bars whoever it may mean.

    An instance that was seen under a seal stays barred: its Landlock rules were tightened, those of the supervisor's
    hand inside were not, and what it opened could be more than the agent may.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._holds = state / "holds"
        self._together = state / "holds" / "together"
        self._listed: tuple[int, frozenset[str] | None] = (0, frozenset())  # when it changed; whom it holds, None: all
        self._halts = state / "halts"
        self._halted: dict[
            str, tuple[int, bool]
        ] = {}  # agent → when the folder was last changed, whether a halt means it
        self._path = state / "supervise" / "refused.json"
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._refused: dict[str, str] = {}
        self._sealed: list[str] = []
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._refused, self._sealed = dict(found["agents"]), list(found["sealed"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                f"{self._path}: not readable as orders: {error}", hint="without it nobody knows what was refused"
            ) from None

    def barred(self, box: Sandbox) -> str:
        """Why, or empty."""
        by = self._refused.get(box.agent)
        if by is not None:
            return f"order by {by}"
        if box.instance in self._sealed:
            return "seal"
        hold = self._holds / f"{box.agent}.json"
        if os.path.exists(hold):  # noqa: PTH110 - asked at each call, at half the cost
            self._note_seal(box, hold)
            return "hold"
        if self._is_held_with_others(box):
            return "hold"
        return "halt" if self._is_halted(box) else ""

    def _is_held_with_others(self, box: Sandbox) -> bool:
        try:
            changed = os.stat(self._together).st_mtime_ns  # noqa: PTH116 - as above
        except FileNotFoundError:
            return False
        seen, held = self._listed
        if seen != changed:
            files = [_ordered(path) for path in self._together.glob("*.json")]
            held = frozenset(name for file in files for name in file) if all(files) else None
            if time.time_ns() - changed > _CLOCK_STEP_NS:  # else the folder may change again and not look so
                self._listed = (changed, held)
        return held is None or box.agent in held

    def _note_seal(self, box: Sandbox, hold: Path) -> None:
        try:
            levels = _LEVELS.findall(hold.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return  # lifted just now: this call is refused all the same, the next is not
        if not levels or any(str(Level.SEAL.value) in found.replace(" ", "").split(",") for found in levels):
            self._sealed = [*self._sealed[-999:], box.instance]
            self._write()

    def _is_halted(self, box: Sandbox) -> bool:
        try:
            changed = os.stat(self._halts).st_mtime_ns  # noqa: PTH116 - as above
        except FileNotFoundError:
            return False
        seen, found = self._halted.get(box.agent, (0, False))
        if seen != changed:
            halts = [_ordered(path) for path in self._halts.glob("*.json")]
            found = any(self._means(halt, box.agent) for halt in halts)
            if time.time_ns() - changed > _CLOCK_STEP_NS:  # else the folder may change again and not look so
                self._halted[box.agent] = (changed, found)
        return found

    def _means(self, halt: dict[str, Any], agent: str) -> bool:
        selector = halt.get("selector") or {}
        value = selector.get("value")
        spec = self._spec(agent)
        match selector.get("kind"):
            case "tenant":
                return spec.get("tenant", value) == value
            case "team":
                return spec.get("team", value) == value
            case "tag":
                return value in spec.get("tags", (value,))
            case "tree":
                return self._works_for(agent, value)
        return True

    def _works_for(self, agent: str, ancestor: object) -> bool:
        for _ in range(_DEEPEST):
            spec = self._spec(agent)
            if agent == ancestor or not spec:
                return True
            agent = spec.get("parent") or ""
            if not agent:
                return False
        return True

    def _spec(self, agent: str) -> dict[str, Any]:
        try:
            found = json.loads((self._state / "agents" / agent / "spec.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def refuse(self, agent: str, *, by: str) -> None:
        """Refuse everything that this agent escalates. Durable on return; `OSError` where it could not be."""
        self._refused[agent] = by
        self._write()

    def decide_again(self, agent: str) -> None:
        """The order is over."""
        self._refused.pop(agent, None)
        self._write()

    def refused(self, agent: str) -> bool:
        """Whether such an order stands."""
        return agent in self._refused

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps({"agents": self._refused, "sealed": self._sealed}).encode())
            os.fdatasync(fd)
        finally:
            os.close(fd)
        new.rename(self._path)
