"""The journal: what was intended, done, observed and undone, written durably and in that order.

    journal = Journal("sqlite:////var/lib/clawback/journal.db")
    incident, opened = journal.open_or_join(finding, playbook="contain-rogue-agent")

Any number of processes may hold the same journal open.
"""

from __future__ import annotations

from clawback.journal.journal import Journal
from clawback.journal.locks import Held
from clawback.journal.states import REVERTED, SETTLED
from clawback.journal.work import Turn

__all__ = ["REVERTED", "SETTLED", "Held", "Journal", "Turn"]
