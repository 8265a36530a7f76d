"""policy.roll-back: the same as policy.restore, and lied to in the same ways."""

from __future__ import annotations

import dataclasses

from lies.policy_restore import CASE as RESTORE

from clawback.actions.policy_roll_back import ACTION

CASE = dataclasses.replace(RESTORE, action=ACTION)
