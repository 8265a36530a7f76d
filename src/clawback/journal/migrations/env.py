"""Alembic's entry: runs the migrations on the connection that `clawback.journal.database` opened and locked."""

from __future__ import annotations

from alembic import context

from clawback.journal.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
