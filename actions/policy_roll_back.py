"""Return a policy to its known-good version by change control: the same as `policy.restore`, once a person has agreed.

For a policy that is merely too wide: nobody is being attacked, and every agent under it may lose what it needs.
"""

from __future__ import annotations

from dataclasses import replace

from clawback.actions.policy_restore import ACTION as RESTORE

__all__ = ["ACTION"]

ACTION = replace(
    RESTORE,
    id="policy.roll-back",
    summary="Return the policy to its last known-good version, with a person's consent.",
    consent=True,
)
