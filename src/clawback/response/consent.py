"""Which steps wait for a person: the settings' rules, first match first, and else what the action asks for itself."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from clawback.action import Action
from clawback.config import ApprovalRule, ApprovalSettings
from clawback.journal.approvals import Need
from clawback.model import Incident, Phase

__all__ = ["needed", "needed_for"]


def needed(settings: ApprovalSettings, action: Action[Any], phase: Phase, incident: Incident) -> Need | None:
    """What must be granted before this step of this incident, or None. No rule makes containment wait."""
    if Phase.CONTAIN in (phase, action.phase):
        return None
    return needed_for(settings, action.id, phase, incident, consent=action.consent)


def needed_for(
    settings: ApprovalSettings, name: str, phase: Phase, incident: Incident, *, consent: bool
) -> Need | None:
    """The same for something by its name. `consent`: it waits where no rule matches."""
    rule = next((rule for rule in settings.rules if _matches(rule, name, phase, incident)), None)
    seconds = max(1, round(settings.minutes * 60))
    if rule is None:
        return Need(seconds=seconds) if consent else None
    if rule.quorum == 0:
        return None
    return Need(quorum=rule.quorum, approvers=rule.approvers, separate=rule.separate, seconds=seconds)


def _matches(rule: ApprovalRule, name: str, phase: Phase, incident: Incident) -> bool:
    return (
        any(fnmatchcase(name, pattern) for pattern in rule.actions)
        and (not rule.phases or phase in rule.phases)
        and rule.drills in (None, incident.drill)
    )
