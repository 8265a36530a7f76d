"""The audit record. What is in the journal already is entered as it stands: from here on a change of it is found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clawback.journal.audit import TABLES, Touched, append
from clawback.journal.migrations.empty import drop_empty

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and enter every row there is."""
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("incident", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("ref", sa.String(32), nullable=False),
        sa.Column("what", sa.String(512), nullable=False),
        sa.Column("actor", sa.String(256), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
    )
    connection = op.get_bind()
    for kind in ("incident", "finding", "receipt", "line"):
        table = TABLES[kind]
        owner = table.c.id if kind == "incident" else table.c.incident
        rows = connection.execute(sa.select(table.c.id, owner.label("incident")).order_by(table.c.id)).all()
        append(connection, [Touched(kind, row.id, row.incident, "there when the record began") for row in rows])


def downgrade() -> None:
    """Only of a journal that nothing was written to."""
    drop_empty("audit")
