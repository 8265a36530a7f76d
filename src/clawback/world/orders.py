"""Orders over the agents' way out, as actions give and read them: the gateway denies by them whatever the policy says.

All calls raise `Unreachable` where the gateway does not answer, `InvalidInput` for an order that is not sound, and
`Refused` where the gateway understands and declines.
"""

from __future__ import annotations

from typing import Protocol

from clawback.model import Attempt, Decision, EgressOrder, InferenceEndpoint, Subject

__all__ = ["Orders"]


class Orders(Protocol):
    """The gateway's orders."""

    def place(self, order: EgressOrder) -> tuple[EgressOrder, int]:
        """Have it stand: durable, in force, and made true of what is open, when this returns; with how many connections
        that ended. Again: the standing one. `Refused` where the id is another order's, or it could deny nothing.
        """
        ...

    def orders(self) -> tuple[EgressOrder, ...]:
        """Every order that stands, oldest first; one whose record is damaged too (it denies everything)."""
        ...

    def lift(self, order: str, *, reason: str, by: str) -> EgressOrder | None:
        """End one, durably; None where none of that id stands."""
        ...

    def held(self) -> dict[str, int]:
        """Order → how many requests it has wait at this moment."""
        ...

    def inference(self) -> tuple[InferenceEndpoint, ...]:
        """Where models are reached, as far as the gateway was told."""
        ...

    def decide(self, policy: str, attempt: Attempt, *, subject: Subject | None = None) -> Decision:
        """What the gateway says to an attempt of this agent, without making it: by all orders, then by the policy."""
        ...
