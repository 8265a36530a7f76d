"""Overrides of the cap on automatic containment, and finding what was contained lately."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clawback.journal.migrations.empty import drop_empty

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and the index."""
    op.create_table(
        "overrides",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("per_minute", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.String(256), nullable=False),
        sa.Column("set_ns", sa.BigInteger, nullable=False),
        sa.Column("until_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_by", sa.String(256), nullable=False),
    )
    op.create_index("overrides_by_end", "overrides", ["until_ns"])
    op.create_index("receipts_by_intent", "receipts", ["action", "intended_ns"])


def downgrade() -> None:
    """Only where nobody lifted the cap."""
    drop_empty("overrides")
    op.drop_index("receipts_by_intent", "receipts")
