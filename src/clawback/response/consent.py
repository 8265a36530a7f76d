"""Which steps wait for a person: the settings' rules, first match first, and else what the action asks for itself."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from clawback.action import Action
from clawback.config import ApprovalRule, ApprovalSettings
from clawback.journal.approvals import Need
from clawback.model import Incident, Phase

__all__ = ["needed"]


def needed(settings: ApprovalSettings, action: Action[Any], phase: Phase, incident: Incident) -> Need | None:
    """What must be granted before this step of this incident, or None. No rule makes containment wait."""
    if Phase.CONTAIN in (phase, action.phase):
        return None
    rule = next((rule for rule in settings.rules if _matches(rule, action, phase, incident)), None)
    seconds = max(1, round(settings.minutes * 60))
    if rule is None:
        return Need(seconds=seconds) if action.consent else None
    if rule.quorum == 0:
        return None
    return Need(quorum=rule.quorum, approvers=rule.approvers, separate=rule.separate, seconds=seconds)


def _matches(rule: ApprovalRule, action: Action[Any], phase: Phase, incident: Incident) -> bool:
    return (
        any(fnmatchcase(action.id, pattern) for pattern in rule.actions)
        and (not rule.phases or phase in rule.phases)
        and rule.drills in (None, incident.drill)
    )
