"""Where a path that a launch shows lies, and what none may show: the core's own, and what an agent's link leads to."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from clawback.enforcement.sandbox.interpreter import too_wide, within
from clawback.errors import InvalidInput

__all__ = ["Ground"]

_SERVICE = "/run/clawback"
_OWN = frozenset(
    ("agents", "aws", "evidence", "gateway", "halts", "holds", "log", "ministack", "openbao", "policies", "postgres",
     "prefect", "run", "secrets", "spares", "supervise", "telemetry", "tickets", "uids", "watch")
)  # fmt: skip
"""Folders that Clawback makes in its state folder; what else lies there is somebody's who chose the place."""

_GIVEN = ("gateway/bundle.pem",)
"""What a launch itself shows of them, read-only."""

_MOST_LINKS = 40  # as many as the kernel follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The host that paths lie on. `state` is the core's state folder, `agents` the user ids of its agents, `written`
    the folders that an agent of its was ever allowed to write to, without links.
    """

    state: str = ""
    agents: range = range(0)
    written: tuple[str, ...] = ()

    def of_an_agent(self, path: str) -> bool:
        """Whether an agent may have put it there, or what it leads to."""
        real = os.path.realpath(path)
        if within(path, self.written) or within(real, self.written):
            return True
        try:
            return any(os.lstat(one).st_uid in self.agents for one in (path, os.path.dirname(path), real))
        except OSError:
            return False  # there is nothing to read, or to follow

    def resolved(self, path: str, where: str, *, writable: bool) -> str:
        """Where it lies now, without links: what is checked here is what is opened later, or nothing is.

        `InvalidInput` where it would show the core's records, secrets or sockets, by whatever name, or leads through a
        link that an agent may have made: that could lead anywhere.
        """
        try:
            found = self._follow(path, where)
        except OSError as error:
            raise InvalidInput(
                f"{where}: {path}: {error.strerror}", hint="it must stay while it is looked at"
            ) from None
        if too_wide(found):
            raise InvalidInput(f"{where}: {path} would show too much", hint="list the folders below it that are needed")
        if self._is_private(found, writable=writable):
            raise InvalidInput(
                f"{where}: {path} would show what Clawback keeps for itself",
                hint="keep agents' files outside its state folder",
            )
        return found

    def _follow(self, path: str, where: str) -> str:
        at, links = "/", 0
        left = path.split("/")[::-1]
        while left:
            name = left.pop()
            if name in {"", "."}:
                continue
            if name == "..":
                at = os.path.dirname(at)
                continue
            following = os.path.join(at, name)
            status = os.lstat(following)
            if not stat.S_ISLNK(status.st_mode):
                at = following
                continue
            links += 1
            if links > _MOST_LINKS or status.st_uid in self.agents or within(at, self.written):
                raise InvalidInput(
                    f"{where}: {path} leads through {following}, a link that an agent may have made",
                    hint="list the folder itself, outside of what agents may write",
                )
            target = os.readlink(following)
            left += target.split("/")[::-1]
            at = "/" if target.startswith("/") else at
        return at

    def _is_private(self, path: str, *, writable: bool) -> bool:
        own = [os.path.realpath(_SERVICE), *([os.path.realpath(self.state)] if self.state else [])]
        if within(path, (own[0],)) or any(within(one, (path,)) for one in own):
            return True
        if not self.state or not within(path, (own[1],)):
            return False
        below = os.path.relpath(path, own[1])
        first = below.split("/", 1)[0]
        if below in _GIVEN and not writable:
            return False
        return first in _OWN or first.startswith(".") or (first == below and not os.path.isdir(path))
