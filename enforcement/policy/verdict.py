"""What the policy engine answers, with all that whoever acts on it must keep to."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Verdict"]


class Verdict(NamedTuple):
    """`rule` is empty where none matched. `level`, `inspect`, `audit`: see `clawback.model.Decision`.

    denied         by a rule that says so, not for want of one that allows
    networks       in which every address of the host must lie; they may be private ones
    upgrade        it may become a WebSocket: `read`, or `write` where the agent may send on it too
    sealed         a tunnel that a rule says is never to be looked into
    wants_caller   ask again with the calling programs
    calls          what the content that was looked at calls (see `Decision`)
    wants_body     ask again with the body, which may have this many bytes; 0: it is not needed
    """

    allowed: bool
    rule: str
    reason: str
    level: str = "destination"
    inspect: bool = False
    audit: bool = False
    denied: bool = False
    networks: tuple[str, ...] = ()
    upgrade: str = ""
    sealed: bool = False
    calls: tuple[str, ...] = ()
    wants_caller: bool = False
    wants_body: int = 0
