"""The journal's tables. A change here wants a migration beside the first one in `migrations/versions`."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "VERSION",
    "approvals",
    "audit",
    "findings",
    "incidents",
    "locks",
    "metadata",
    "overrides",
    "receipts",
    "timeline",
    "votes",
    "work",
]

VERSION = "0005"  # the newest migration; a journal that says so is opened without asking Alembic

metadata = MetaData()

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("agent", String(256), nullable=False),
    Column("instance", String(256), nullable=False),
    Column("status", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("severity", Integer, nullable=False),
    Column("playbook", String(256), nullable=False),
    Column("drill", Boolean, nullable=False),
    Column("orchestration", String(16), nullable=False),
    Column("opened_ns", BigInteger, nullable=False),
    Column("closed_ns", BigInteger, nullable=False, default=0),
    Index("incidents_by_status", "status", "opened_ns"),
    # One open incident for one launch of an agent; a drill never hides a real one.
    Index(
        "incidents_open_once",
        "instance",
        "agent",
        "drill",
        unique=True,
        sqlite_where=text("status = 'open'"),
        postgresql_where=text("status = 'open'"),
    ),
)

findings = Table(
    "findings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("incident", String(32), ForeignKey("incidents.id"), nullable=False),
    Column("digest", String(64), nullable=False),  # of what makes two findings one
    Column("occurrence", String(64), nullable=False),  # of that and the events it rests on
    Column("body", JSON, nullable=False),
    UniqueConstraint("incident", "digest", name="findings_once"),
    Index("findings_by_occurrence", "occurrence"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("incident", String(32), ForeignKey("incidents.id"), nullable=False),
    Column("key", String(512), nullable=False),
    Column("action", String(256), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("params", JSON, nullable=False),
    Column("captured", JSON, nullable=False),
    Column("outcome", JSON, nullable=False),
    Column("enforcement", String(16), nullable=True),
    Column("proof", Text, nullable=False, default=""),
    Column("error", Text, nullable=False, default=""),
    Column("actor", String(256), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("intended_ns", BigInteger, nullable=False),
    Column("captured_ns", BigInteger, nullable=False, default=0),
    Column("applied_ns", BigInteger, nullable=False, default=0),
    Column("verified_ns", BigInteger, nullable=False, default=0),
    Column("reverted_ns", BigInteger, nullable=False, default=0),
    UniqueConstraint("incident", "key", name="receipts_once"),
    Index("receipts_by_intent", "action", "intended_ns"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("incident", String(32), ForeignKey("incidents.id"), nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("phase", String(16), nullable=False),
    Column("what", String(512), nullable=False),
    Column("detail", Text, nullable=False, default=""),
    Index("timeline_by_incident", "incident", "id"),
)

locks = Table(
    "locks",
    metadata,
    Column("agent", String(256), primary_key=True),
    Column("token", String(32), nullable=False),
    Column("host", String(256), nullable=False),
    Column("boot", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("taken_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger, nullable=False),
)

work = Table(
    "work",
    metadata,
    Column("incident", String(32), ForeignKey("incidents.id"), primary_key=True),
    Column("asked", Integer, nullable=False),
    Column("due_ns", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("incident", String(32), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("ref", String(32), nullable=False),
    Column("what", String(512), nullable=False),
    Column("actor", String(256), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),  # of the row as it then stood
    Column("hash", LargeBinary(32), nullable=False),  # of this entry and the one before
)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("incident", String(32), ForeignKey("incidents.id"), nullable=False),
    Column("key", String(512), nullable=False),
    Column("action", String(256), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("nonce", String(32), nullable=False),
    Column("shown", JSON, nullable=False),
    Column("asked_by", String(256), nullable=False),
    Column("quorum", Integer, nullable=False),
    Column("approvers", JSON, nullable=False),
    Column("separate", Boolean, nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("asked_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Index("approvals_by_step", "incident", "key", "asked_ns"),
    Index("approvals_by_state", "state"),
)

votes = Table(
    "votes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("approval", String(32), ForeignKey("approvals.id"), nullable=False),
    Column("incident", String(32), ForeignKey("incidents.id"), nullable=False),
    Column("who", String(256), nullable=False),
    Column("grant", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("channel", String(32), nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    UniqueConstraint("approval", "who", name="votes_once"),
)

overrides = Table(
    "overrides",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("per_minute", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("by", String(256), nullable=False),
    Column("set_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger, nullable=False, default=0),
    Column("ended_by", String(256), nullable=False, default=""),
    Index("overrides_by_end", "until_ns"),
)
