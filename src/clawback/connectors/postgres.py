"""PostgreSQL as an agent logs in to it: `clawback.world.databases.Databases`, by psycopg.

A password goes over verified TLS only, unless the credential's `sslmode` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clawback.errors import InvalidInput, Unreachable

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresLogins"]

_CONNECT_SECONDS = 3
_STATEMENT_MS = 3000
_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
# A failed connection has no SQLSTATE in libpq, only the server's words; of a server that speaks another language the
# answer is inconclusive, and inconclusive is no refusal.
_REFUSED = re.compile(
    r'password authentication failed|is not permitted to log in|no pg_hba\.conf entry for|role ".*" does not exist'
)
_OTHERS = "FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid() AND backend_start < "


class _Refused(Exception):
    """The server's answer to a login."""


class PostgresLogins:
    """Opens a connection for each question, and keeps none."""

    def logs_in(self, place: Mapping[str, str], user: str, password: str) -> tuple[bool, str]:
        """Log in and ask one thing."""
        try:
            with _connected(place, user, password) as connection:
                connection.execute("SELECT 1")
        except _Refused as refused:
            return False, str(refused)
        return True, "logged in"

    def end_sessions(self, place: Mapping[str, str], user: str, password: str) -> str:
        """By `pg_terminate_backend`, which every user may call on its own sessions."""
        with self._let_in(place, user, password) as connection:
            (at,) = _one(connection, "SELECT clock_timestamp()")
            connection.execute("SELECT pg_terminate_backend(pid) " + _OTHERS + "%s", (at,))
        return str(at.isoformat())

    def sessions_before(self, place: Mapping[str, str], user: str, password: str, at: str) -> int:
        """From `pg_stat_activity`, in which every user sees its own."""
        with self._let_in(place, user, password) as connection:
            (count,) = _one(connection, "SELECT count(*) " + _OTHERS + "%s::timestamptz", (at,))
        return int(count)

    @contextmanager
    def _let_in(self, place: Mapping[str, str], user: str, password: str) -> Iterator[psycopg.Connection[Any]]:
        try:
            with _connected(place, user, password) as connection:
                yield connection
        except _Refused as refused:
            raise Unreachable(
                f"PostgreSQL does not let {user} in: {refused}", hint="its sessions cannot be looked at"
            ) from None


def _one(connection: psycopg.Connection[Any], query: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    return tuple(row or ())


@contextmanager
def _connected(place: Mapping[str, str], user: str, password: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        import psycopg
    except ImportError:
        raise Unreachable(
            "PostgreSQL is not asked: psycopg is not installed", hint="pip install 'clawback[postgres]'"
        ) from None

    where = _where(place)
    try:
        connection = psycopg.connect(
            **where,
            user=user,
            password=password,
            connect_timeout=_CONNECT_SECONDS,
            options=f"-c statement_timeout={_STATEMENT_MS}",
            autocommit=True,
            application_name="clawback",
        )
    except psycopg.OperationalError as error:
        said = _clean(str(error), password)
        if _REFUSED.search(said):
            raise _Refused(said) from None
        raise _away(where, said) from None
    with connection:
        try:
            yield connection
        except psycopg.Error as error:
            raise _away(where, _clean(str(error), password)) from None


def _where(place: Mapping[str, str]) -> dict[str, Any]:
    engine, mode = place.get("engine", "postgresql"), place.get("sslmode", "verify-full")
    if engine != "postgresql":
        raise Unreachable(
            f"no client for {engine[:40]!a} is built in", hint="log in by hand to see the old one refused"
        )
    if mode not in _MODES:
        raise InvalidInput(f"sslmode: {mode[:40]!a} is none", hint=f"one of {', '.join(_MODES)}")
    if not place.get("port", "5432").isdecimal():
        raise InvalidInput(f"port: {place['port'][:40]!a} is none", hint="a number")
    where = {
        "host": place["host"],
        "port": int(place.get("port", "5432")),
        "dbname": place.get("database", "postgres"),
        "sslmode": mode,
        "sslrootcert": place.get("sslrootcert") or ("system" if mode == "verify-full" else ""),
    }
    return {key: value for key, value in where.items() if value}


def _away(where: Mapping[str, Any], said: str) -> Unreachable:
    return Unreachable(
        f"PostgreSQL at {where['host']}:{where['port']} gave no answer to the login: {said}",
        hint="check that it is up and reachable; `clawback resume` tries again",
    )


def _clean(text: str, password: str) -> str:
    said = " ".join(text.split())
    return (said.replace(password, "[redacted]") if password else said)[-300:]
