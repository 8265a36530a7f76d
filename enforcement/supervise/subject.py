"""One held call as it is decided on, and what is shown of it to people."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from clawback.enforcement.kernel.notify import Held
from clawback.enforcement.supervise.target import Address, Thread, identify, signed

__all__ = ["Done", "Flow", "Reply", "Subject", "registers"]

Reply = tuple[dict[str, Any], list[int]]
Flow = Generator[tuple[dict[str, Any], list[int]], Reply, None]
"""Yields requests to the hand inside, with descriptors that are closed once sent; gets its answers."""


class Done(Exception):
    """The call was made before a signal came between it and its answer."""


@dataclass(slots=True, kw_only=True)
class Subject:
    """One call as it is decided on. Nothing in it is read a second time.

    `shown` is for people: decoded arguments. `act` is what the hand inside is told to do, with `descriptors`, ours
    until then; None where the kernel makes the call (`registers` only). `found` are the places that the hand holds.
    """

    name: str
    held: Held
    shown: dict[str, str | int] = field(default_factory=dict)
    address: Address | None = None
    paths: tuple[str, ...] = ()
    writes: bool | None = None
    act: dict[str, Any] | None = None
    descriptors: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    close_on_exec: bool = False
    known: Thread | None = None
    free: bool = False
    """It carries nothing that the policy is about: allowed where no rule says otherwise."""

    copied: list[bytes] = field(default_factory=list)
    """What was read of the caller's memory, in order."""
    done: Callable[[Subject], bool] | None = None
    """Asked once the memory is copied, before anything is looked up: whether this call was made already."""

    @property
    def thread(self) -> Thread:
        """Who made it; looked up when first asked for, which is to be while the call is held. `OSError` if gone."""
        if self.known is None:
            self.known = identify(self.held.tid)
        return self.known

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for a call and the same one that starts over after a signal."""
        return (self.held.tid, self.held.number, self.held.arguments, tuple(self.copied))

    @property
    def same_question(self) -> tuple[object, ...]:
        """Equal where also what its paths lead to is the same."""
        return (*self.same, self.paths, self.address)

    def look_out(self) -> None:
        """Raise `Done` if this call was made already: it starts over only because its answer came too late."""
        done, self.done = self.done, None
        if done is not None and done(self):
            raise Done

    def close(self) -> None:
        """Let go of the descriptors."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = []


_REGISTERS = {
    "socket": ("family", "type", "protocol"),
    "socketpair": ("family", "type", "protocol"),
    "listen": ("descriptor", "backlog"),
    "shutdown": ("descriptor", "how"),
    "kill": ("pid", "signal"),
    "tkill": ("tid", "signal"),
    "tgkill": ("pid", "tid", "signal"),
    "setuid": ("uid",),
    "setgid": ("gid",),
    "setpgid": ("pid", "group"),
    "getpgid": ("pid",),
    "ioctl": ("descriptor", "request"),
    "fchmod": ("descriptor", "mode"),
    "fchown": ("descriptor", "uid", "gid"),
    "ftruncate": ("descriptor", "length"),
}


def registers(name: str, held: Held) -> dict[str, str | int]:
    """A call's registers for people: by name where they are numbers, all six where they may be anything."""
    names = _REGISTERS.get(name)
    if names is None:
        return {f"argument {index}": hex(value) for index, value in enumerate(held.arguments)}
    return {word: signed(value) for word, value in zip(names, held.arguments, strict=False)}
