"""agent.seal: a process without the filter comes to live in the group, or nothing was ever put on anything."""

from __future__ import annotations

from lies.case import Lie
from lies.ladder import ladder, stranger

from clawback.actions.agent_seal import ACTION
from clawback.model import Level

CASE = ladder(ACTION, Level.SEAL, Lie(what="an unsealed process joins", drifts=True, behind=stranger, races=True))
