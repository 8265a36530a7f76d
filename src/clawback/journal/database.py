"""Opens the journal's database: durable commits, writers in line, and the schema brought up to date.

SQLite is set to write-ahead logging with a disk flush at every commit (0.3 ms on the machine it was measured on). A
writing transaction takes the write lock when it begins: one that reads first and upgrades later fails at once with
`database is locked` when another wrote meanwhile, however long the busy time-out is. On PostgreSQL writers stand in
line by an advisory lock: the audit record is one chain, so one of them commits at a time in any case.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DatabaseError

from clawback.errors import ClawbackError, InvalidInput, NotFound, Unreachable
from clawback.journal.schema import VERSION, metadata

__all__ = ["at_a_glance", "at_one_moment", "open_database", "reason"]

BUSY_MS = 10_000
_MIGRATION_SECONDS = 3_600.0
_LOCK = 0x636C6177  # this database's advisory locks are Clawback's alone

# Alembic's own table, as it makes it.
_versions = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def open_database(url: str, *, make: bool = True) -> Engine:
    """An engine on a journal whose schema is current; a new one is made where there is none, or is `NotFound`.

    `InvalidInput` for a bad URL or a journal of a newer Clawback.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidInput(
            "journal_url: not a database URL", hint="for example sqlite:////var/lib/clawback/journal.db"
        ) from None
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite:
        if not parsed.database or parsed.database == ":memory:":
            raise InvalidInput("journal_url: a journal in memory is none", hint="name a file")
        if not make and _empty(Path(parsed.database)):  # to open it would write to it
            raise _none(parsed)
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(parsed, pool_size=16, max_overflow=16)
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"journal_url: the driver {error.name} is not installed", hint="pip install 'clawback[postgres]'"
        ) from None
    if sqlite:
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
    elif engine.dialect.name == "postgresql":
        from clawback.journal.patient import CONNECT_SECONDS, Patient

        event.listen(
            engine,
            "do_connect",
            lambda _dialect, _record, where, how: Patient.connect(*where, connect_timeout=CONNECT_SECONDS, **how),
        )
        event.listen(engine, "begin", _stand_in_line)
    else:
        raise InvalidInput(f"journal_url: {engine.dialect.name} is not supported", hint="SQLite or PostgreSQL")
    try:
        version = _version(engine)
        if version is None and not make:
            raise _none(parsed)
        if version is None:
            version = _make(engine)
        if version != VERSION:
            _bring_up_to_date(engine, version)
    except ClawbackError:
        engine.dispose()
        raise
    except (DatabaseError, UnicodeDecodeError) as error:
        engine.dispose()
        raise Unreachable(
            f"the journal does not open: {reason(error)}", hint=f"check {parsed.render_as_string()}"
        ) from None
    return engine


def at_one_moment(engine: Engine) -> Engine:
    """The same database, where all that is read within one transaction is as it was when that began.

    SQLite reads so in any case. On PostgreSQL each statement would see what was committed up to it, and a record that
    is written meanwhile would not fit itself. Writers stay as they are: they must see what those before them in the
    line have written.
    """
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")


def at_a_glance(engine: Engine) -> Engine:
    """The same database, where each statement stands for itself: on PostgreSQL beginning and ending a transaction costs
    twice what a look does. With SQLite it costs nothing to speak of.
    """
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")


def reason(error: Exception) -> str:
    """What the database says is wrong; of a damaged file it may say it in bytes that are no text."""
    return "the file is damaged" if isinstance(error, UnicodeDecodeError) else str(getattr(error, "orig", error))


def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # sqlite3 itself begins nothing; `_begin` below does
    for pragma in (
        f"busy_timeout = {BUSY_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _stand_in_line(connection: Connection) -> None:
    if connection.get_execution_options().get("writes", False):
        # Durable whatever the server's default is: an effect may follow at once.
        connection.exec_driver_sql(
            f"SELECT set_config('synchronous_commit', 'on', true), pg_advisory_xact_lock({_LOCK})"
        )


def _empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def _none(url: URL) -> NotFound:
    return NotFound(
        f"there is no journal at {url.render_as_string()}",
        hint="is --state or --config right? `clawback up` makes one when it first starts",
    )


def _version(engine: Engine) -> str | None:
    """None where there is no journal. That it cannot be looked is raised: a server that is down says no such thing."""
    with engine.connect() as connection:
        return _said(connection)


def _said(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_versions.name):
        return None
    return connection.execute(select(_versions.c.version_num)).scalar()


def _make(engine: Engine) -> str:
    """A journal of the newest version, unless another process got here first; the version that is there then."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if (version := _said(connection)) is None:
            metadata.create_all(connection, checkfirst=False)
            _versions.create(connection, checkfirst=True)  # it stays where all migrations were undone
            connection.execute(_versions.insert().values(version_num=VERSION))
            version = VERSION
    return version


def _bring_up_to_date(engine: Engine, version: str) -> None:
    if version > VERSION:
        raise InvalidInput(f"the journal has schema {version}, this Clawback knows {VERSION}", hint="upgrade Clawback")
    from alembic import command  # 0.15 s to import, and wanted once in a journal's life
    from alembic.config import Config
    from alembic.util import CommandError

    with engine.connect().execution_options(writes=True) as connection:
        if engine.dialect.name == "postgresql":  # a long record takes long to change
            connection.connection.driver_connection.seconds = _MIGRATION_SECONDS  # type: ignore[union-attr]  # ours
        with connection.begin():
            # Another process may have got here first; with the write lock held the second look is final.
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.set_main_option("version_path_separator", "os")
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError:  # it names none of our versions
                raise InvalidInput(
                    f"the journal has schema {version!a}, which no Clawback has", hint="is it damaged?"
                ) from None
    engine.dispose()  # that connection is more patient than others are to be
