"""Whether a policy text that an incident took out of force is in force again."""

from __future__ import annotations

from clawback.action import Context, Record, Verification
from clawback.model import Enforcement

__all__ = ["still_away"]


def still_away(ctx: Context, policy: str, captured: Record, why: str) -> Verification:
    """By what the engine decides by now. `captured` has that text's `sha256` and `version`; `why` ends "which …"."""
    active = ctx.world.policies.active(policy)
    back = active.sha256 == captured["sha256"]
    return Verification(
        verified=not back,
        enforcement=Enforcement.NONE if back else Enforcement.FULL,
        proof=f"the engine decides by version {active.version} by {active.author}, whose text is "
        f"{'that of' if back else 'not that of'} version {captured['version']}, which {why}",
    )
