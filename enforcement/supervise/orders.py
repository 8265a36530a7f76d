"""Why nothing may be allowed an agent: it is held, or everything escalated was ordered refused. Both outlive us."""

from __future__ import annotations

import json
import os
from pathlib import Path

from clawback.enforcement.sandbox.record import Sandbox
from clawback.errors import InvalidInput
from clawback.model import Level

__all__ = ["Orders"]


class Orders:
    """Orders are in `STATE/supervise/refused.json`, agent → by whom, flushed before they are acknowledged.

    Holds are the core's, in `STATE/holds/AGENT.json`, and read from there: a core that is gone still holds.

    An instance that was seen under a seal stays barred: its Landlock rules were tightened, those of the supervisor's
    hand inside were not, and what it opened could be more than the agent may.
    """

    def __init__(self, state: Path) -> None:
        self._holds = state / "holds"
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
        if not os.path.exists(hold):  # noqa: PTH110 - asked at each call, at half the cost
            return ""
        if self._is_seal(hold):
            self._sealed = [*self._sealed[-999:], box.instance]
            self._write()
        return "hold"

    @staticmethod
    def _is_seal(hold: Path) -> bool:
        try:
            return Level.SEAL in json.loads(hold.read_text(encoding="utf-8"))["levels"]
        except (OSError, ValueError, KeyError, TypeError):
            return True  # a damaged order is no permission

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
