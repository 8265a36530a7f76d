"""What a file of this folder declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clawback.action import Record
from clawback.actions._records import Records
from clawback.actions._walk import Issued, Seen
from clawback.model import CredentialNode, CredentialRef

__all__ = ["Kind", "nothing_captured", "nothing_issued", "nothing_seeded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of node.

    order        closing goes from low to high: keys before the sessions that they make
    sessions     it stands for sessions, which are closed after the keys of the inventory
    reversible   closing can be undone by `reopen`
    seeds        the nodes that a credential of the inventory amounts to; by (records, agent, credential)
    issued_from  what the issuer knows to have come from one
    life         whether it works
    capture      what undoing and proving need, as plain JSON; made once, before the first close
    close        make it useless; doing it twice is doing it once. Returns plain JSON
    reopen       undo from what was captured and what closing returned nothing of
    would        what closing would change, as lines of a diff
    """

    name: str
    order: int
    reversible: bool
    seeds: Callable[[Records, str, CredentialRef], tuple[CredentialNode, ...]]
    issued_from: Callable[[Records, CredentialNode], Issued]
    life: Callable[[Records, CredentialNode], Seen]
    close: Callable[[Records, CredentialNode, Record], dict[str, Any]]
    would: Callable[[CredentialNode], tuple[str, ...]]
    capture: Callable[[Records, CredentialNode, int], dict[str, Any]]
    reopen: Callable[[Records, CredentialNode, Record], None] | None = None
    sessions: bool = False


def nothing_seeded(_records: Records, _agent: str, _ref: CredentialRef) -> tuple[CredentialNode, ...]:
    """For a kind that is never in the inventory itself."""
    return ()


def nothing_issued(_records: Records, _node: CredentialNode) -> Issued:
    """For a kind that nothing is issued from."""
    return Issued()


def nothing_captured(_records: Records, _node: CredentialNode, _turn: int) -> dict[str, Any]:
    """For a kind that cannot be given back."""
    return {}
