"""Who may lift a hold: the kernel's word on who asks, held against who ordered it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clawback.errors import Refused
from clawback.model import Order

__all__ = ["ReleaseRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRules:
    """`core.release` of the settings.

    separation   an order is not lifted by the user that gave it
    approvers    users that may lift anything at all; empty: all that may call `release`

    A user is the user id that the kernel reports for the caller's end of the socket. The name that a caller gives
    itself (`by`) is recorded and never decides anything, so two people who both act as root are one user here.
    """

    separation: bool = False
    approvers: frozenset[int] = frozenset()

    def check(self, uid: int, orders: Sequence[Order], what: str) -> None:
        """`Refused` where this user may not lift one of these orders; `what` is the agent or halt."""
        if self.approvers and uid not in self.approvers:
            raise Refused(
                f"user {uid} may not release {what}",
                hint=f"core.release.approvers lists who may: {', '.join(map(str, sorted(self.approvers)))}",
            )
        own = [order for order in orders if order.uid == uid]
        if self.separation and own:
            raise Refused(
                f"user {uid} gave the order that holds {what} ({own[0].by}: {own[0].reason[:200]}) and may not lift it",
                hint="core.release.separation is on: another user has to",
            )
