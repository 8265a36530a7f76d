"""Going back a version is allowed only where nothing is lost by it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clawback.errors import Refused

__all__ = ["drop_empty"]


def drop_empty(*tables: str) -> None:
    """Drop them, in this order. `Refused` where one holds a row: a program throws no record away."""
    connection = op.get_bind()
    for name in tables:
        if connection.execute(sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)).scalar():
            raise Refused(f"the journal's {name} are not empty", hint="keep the journal; start an older one elsewhere")
    for name in tables:
        op.drop_table(name)
