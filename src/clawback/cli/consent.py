"""What a command about an incident waits for, where the rules want others to say yes to it first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clawback.cli.app import settings
from clawback.cli.record import open_journal
from clawback.errors import Refused
from clawback.model import ApprovalState, Incident, Phase

__all__ = ["insist"]


def insist(
    found: Incident, name: str, phase: Phase, params: Mapping[str, Any], *, shown: Sequence[str], consent: bool
) -> None:
    """`Refused` until as many others as the rules for `name` want have said yes to exactly this.

    `consent`: one other has to, where no rule is about it.
    """
    from clawback.cli.approvals import who
    from clawback.response.consent import needed_for

    chosen = settings()
    need = needed_for(chosen.approvals, name, phase, found, consent=consent)
    if need is None:
        return
    journal = open_journal()
    asked = journal.ask(found, name, name, phase, params, need, shown=shown, actor=who())
    if asked.state is ApprovalState.GRANTED:
        journal.use(asked.id, who())
        return
    hint = {ApprovalState.PENDING: f"have it granted (`clawback approvals grant {asked.id}`), then say this again"}
    raise Refused(
        f"{name} in {found.id}: {asked.id} is {asked.state.value}",
        hint=hint.get(asked.state, f"`clawback approvals renew {asked.id}` asks anew"),
    )
