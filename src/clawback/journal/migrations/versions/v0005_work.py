"""Leases on agents' locks, and which incident wants work when: for responders on several hosts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A lock that stands has a lease that is over: its owner is looked at as before."""
    with op.batch_alter_table("locks") as locks:
        locks.add_column(sa.Column("until_ns", sa.BigInteger, nullable=False, server_default="0"))
    with op.batch_alter_table("locks") as locks:
        locks.alter_column("until_ns", server_default=None)
    op.create_table(
        "work",
        sa.Column("incident", sa.String(32), sa.ForeignKey("incidents.id"), primary_key=True),
        sa.Column("asked", sa.Integer, nullable=False),
        sa.Column("due_ns", sa.BigInteger, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("pending", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Both are about what is being done now, not about what was done."""
    op.drop_table("work")
    with op.batch_alter_table("locks") as locks:
        locks.drop_column("until_ns")
