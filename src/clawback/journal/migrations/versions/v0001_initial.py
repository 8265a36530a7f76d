"""Incidents, findings, receipts, timeline, locks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from clawback.journal.migrations.empty import drop_empty

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("agent", sa.String(256), nullable=False),
        sa.Column("instance", sa.String(256), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("severity", sa.Integer, nullable=False),
        sa.Column("playbook", sa.String(256), nullable=False),
        sa.Column("drill", sa.Boolean, nullable=False),
        sa.Column("orchestration", sa.String(16), nullable=False),
        sa.Column("opened_ns", sa.BigInteger, nullable=False),
        sa.Column("closed_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("incidents_by_status", "incidents", ["status", "opened_ns"])
    op.create_index(
        "incidents_open_once",
        "incidents",
        ["instance", "agent", "drill"],
        unique=True,
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incident", sa.String(32), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("occurrence", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.UniqueConstraint("incident", "digest", name="findings_once"),
    )
    op.create_index("findings_by_occurrence", "findings", ["occurrence"])
    op.create_table(
        "receipts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incident", sa.String(32), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("key", sa.String(512), nullable=False),
        sa.Column("action", sa.String(256), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("captured", sa.JSON, nullable=False),
        sa.Column("outcome", sa.JSON, nullable=False),
        sa.Column("enforcement", sa.String(16), nullable=True),
        sa.Column("proof", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("actor", sa.String(256), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("intended_ns", sa.BigInteger, nullable=False),
        sa.Column("captured_ns", sa.BigInteger, nullable=False),
        sa.Column("applied_ns", sa.BigInteger, nullable=False),
        sa.Column("verified_ns", sa.BigInteger, nullable=False),
        sa.Column("reverted_ns", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("incident", "key", name="receipts_once"),
    )
    op.create_table(
        "timeline",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incident", sa.String(32), sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("what", sa.String(512), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("timeline_by_incident", "timeline", ["incident", "id"])
    op.create_table(
        "locks",
        sa.Column("agent", sa.String(256), primary_key=True),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("host", sa.String(256), nullable=False),
        sa.Column("boot", sa.String(64), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("taken_ns", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Only of a journal that nothing was written to."""
    drop_empty("timeline", "receipts", "findings", "locks", "incidents")
