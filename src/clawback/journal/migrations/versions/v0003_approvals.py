"""Approvals and the votes on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clawback.journal.migrations.empty import drop_empty

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "approvals",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("incident", sa.String(32), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("key", sa.String(512), nullable=False),
        sa.Column("action", sa.String(256), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("nonce", sa.String(32), nullable=False),
        sa.Column("shown", sa.JSON, nullable=False),
        sa.Column("asked_by", sa.String(256), nullable=False),
        sa.Column("quorum", sa.Integer, nullable=False),
        sa.Column("approvers", sa.JSON, nullable=False),
        sa.Column("separate", sa.Boolean, nullable=False),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("asked_ns", sa.BigInteger, nullable=False),
        sa.Column("expires_ns", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_index("approvals_by_step", "approvals", ["incident", "key", "asked_ns"])
    op.create_index("approvals_by_state", "approvals", ["state"])
    op.create_table(
        "votes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("approval", sa.String(32), sa.ForeignKey("approvals.id"), nullable=False),
        sa.Column("incident", sa.String(32), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("who", sa.String(256), nullable=False),
        sa.Column("grant", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("channel", sa.String(32), nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("approval", "who", name="votes_once"),
    )


def downgrade() -> None:
    """Only where nothing was asked."""
    drop_empty("votes", "approvals")
