"""The journal's part in the cap on automatic containment: what was contained lately, and who lifted the cap."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Connection, insert, select, update

from clawback.errors import InvalidInput, Refused
from clawback.journal import records
from clawback.journal.schema import incidents, overrides, receipts
from clawback.journal.store import Store
from clawback.model import Override

__all__ = ["LONGEST_SECONDS", "Caps"]

LONGEST_SECONDS = 8 * 3600  # a shift: whoever comes next lifts it anew, or does not
_LATELY = 10_000
_FREEZE = "agent.freeze"  # every containment by automation begins with it


class Caps(Store):
    """What `Journal` does with the cap."""

    def contained(self, since_ns: int, actors: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """(agent, when) of each containment by one of these actors since then, drills apart; the newest first."""
        query = (
            select(receipts.c.params["agent"].as_string().label("agent"), receipts.c.intended_ns)
            .join(incidents, incidents.c.id == receipts.c.incident)
            .where(
                receipts.c.action == _FREEZE,
                receipts.c.intended_ns >= since_ns,
                receipts.c.actor.in_(actors),
                incidents.c.drill.is_(False),
            )
            .order_by(receipts.c.intended_ns.desc())
            .limit(_LATELY)
        )
        with self.reading() as connection:
            return tuple((row.agent, row.intended_ns) for row in connection.execute(query))

    def override(self, per_minute: int, *, seconds: float, reason: str, by: str) -> Override:
        """Let this many agents a minute be contained for so long; 0: any number. It takes the place of one that stands.

        `InvalidInput` for no reason, or a time that is none or beyond `LONGEST_SECONDS`.
        """
        if not reason.strip():
            raise InvalidInput("the cap is not lifted without a reason", hint="it goes on record")
        if not 0 < seconds <= LONGEST_SECONDS:
            raise InvalidInput(f"{seconds:g} s is no time to lift the cap for", hint=f"at most {LONGEST_SECONDS} s")
        if per_minute < 0:
            raise InvalidInput(f"{per_minute} agents a minute is no cap", hint="0: any number")
        now = time.time_ns()
        one = Override(
            id=f"CAP-{secrets.token_hex(6).upper()}",
            per_minute=per_minute,
            reason=records.bounded(reason, 500),
            by=records.identifier(by, "user"),
            set_ns=now,
            until_ns=now + round(seconds * 1e9),
        )
        with self.writing() as connection:
            self._end(connection, by)
            values = {name: getattr(one, name) for name in ("id", "per_minute", "reason", "by", "set_ns", "until_ns")}
            connection.execute(insert(overrides).values(**values, ended_ns=0, ended_by=""))
            self._touch(connection, "override", one.id, "", f"cap {per_minute or 'lifted'}", one.by)
        return one

    def overridden(self) -> Override | None:
        """The override that stands now."""
        query = (
            select(overrides)
            .where(overrides.c.until_ns > time.time_ns(), overrides.c.ended_ns == 0)
            .order_by(overrides.c.set_ns.desc())
            .limit(1)
        )
        with self.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Override(
            id=row.id, per_minute=row.per_minute, reason=row.reason, by=row.by, set_ns=row.set_ns, until_ns=row.until_ns
        )

    def end_override(self, by: str) -> None:
        """The cap is as configured again. `Refused` where it is already."""
        with self.writing() as connection:
            if not self._end(connection, records.identifier(by, "user")):
                raise Refused("the cap is not overridden", hint="`clawback cap` shows it")

    def _end(self, connection: Connection, by: str) -> bool:
        now = time.time_ns()
        standing = select(overrides.c.id).where(overrides.c.until_ns > now, overrides.c.ended_ns == 0)
        found = connection.execute(standing).scalars().all()
        for name in found:
            connection.execute(
                update(overrides).where(overrides.c.id == name).values(ended_ns=now, ended_by=records.bounded(by, 256))
            )
            self._touch(connection, "override", name, "", "cap as configured", by)
        return bool(found)
