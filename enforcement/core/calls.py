"""How many requests one user may have under way, so that no client keeps the others from being served."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from clawback.errors import Unreachable

__all__ = ["Calls"]

_MOST = {"launch": 8, "relaunch": 8, "evidence": 4, "attempt": 4}
_MOST_OTHERS = 32


class Calls:
    """Counted in one thread, the server's. Root and the core's own user are not bounded: the responder is among them,
    or has a user of its own.
    """

    def __init__(self) -> None:
        self._under_way: Counter[tuple[int, str]] = Counter()
        self._trusted = {0, os.geteuid()}

    @contextmanager
    def one_of(self, uid: int, verb: str) -> Iterator[None]:
        """While a request is served. `Unreachable` where the user has too many of this kind under way: ask again."""
        if uid in self._trusted:
            yield
            return
        kind = (uid, verb)
        most = _MOST.get(verb, _MOST_OTHERS)
        if self._under_way[kind] >= most:
            raise Unreachable(
                f"user {uid} has {most} calls of {verb!r} under way", hint="ask again when one of them is answered"
            )
        self._under_way[kind] += 1
        try:
            yield
        finally:
            self._under_way[kind] -= 1
            if not self._under_way[kind]:
                del self._under_way[kind]
