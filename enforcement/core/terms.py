"""The exceptions that orders make: responders whom an isolated agent may reach, paths that a restricted one may open.

Several orders let through what each of them does: an order that names nothing lets nothing through.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from clawback.enforcement.quarantine import responders
from clawback.errors import InvalidInput
from clawback.model import Level, Order

__all__ = ["Terms", "checked", "terms"]

_MOST = 16


@dataclass(frozen=True, slots=True)
class Terms:
    """`allow`: `ADDRESS:PORT` each; `readable`: absolute paths, with what is below them."""

    allow: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()


def checked(
    level: Level, allow: tuple[str, ...] | None, readable: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The same, in one spelling; None stays None, which is to leave them as the same holder ordered them before.

    `InvalidInput` where the level makes no such exception, or where it would be too wide.
    """
    if allow is not None and level is not Level.ISOLATE:
        raise InvalidInput("allow: isolate alone lets responders through", hint=f"leave it out for {level.word}")
    if readable is not None and level is not Level.RESTRICT:
        raise InvalidInput("readable: restrict alone refuses opens", hint=f"leave it out for {level.word}")
    return (
        None if allow is None else responders.checked(allow),
        None if readable is None else _paths(readable),
    )


def terms(orders: Iterable[Order]) -> Terms:
    """What all of them together let through."""
    orders = tuple(orders)
    allowing = [order.allow or () for order in orders if Level.ISOLATE in order.levels]
    reading = [order.readable or () for order in orders if Level.RESTRICT in order.levels]
    allow = [one for one in _once(allowing) if all(one in each for each in allowing)]
    readable = [one for one in _once(reading) if all(any(_below(one, path) for path in each) for each in reading)]
    return Terms(tuple(allow), tuple(readable))


def _once(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for each in lists for one in each))


def _below(path: str, top: str) -> bool:
    return PurePosixPath(path).is_relative_to(top)


def _paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    if len(paths) > _MOST:
        raise InvalidInput(f"readable: {len(paths)} paths", hint=f"at most {_MOST}")
    for one in paths:
        path = PurePosixPath(one)
        if not path.is_absolute() or ".." in path.parts or not one.isprintable():
            raise InvalidInput(f"readable: {one[:80]!r} is no absolute path", hint="as the agent sees it, without ..")
        if path == PurePosixPath("/") or str(path).startswith("//"):
            raise InvalidInput(f"readable: {one[:80]!r} is everything", hint="name what the agent needs to go on")
    return tuple(dict.fromkeys(str(PurePosixPath(one)) for one in paths))
