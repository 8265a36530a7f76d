"""The audit record: an entry for each change of the journal, bound to the one before it and to the row it is about.

An entry's hash covers all of its columns, the hash before it, and the digest of the row as it then stood. So a byte
that is changed afterwards, in a row or in the record, is found, and so is a row or an entry that was taken out. What a
chain alone cannot show is that its newest end was cut off together with the rows that it speaks of: for that, a head
(`SEQ:HASH`) noted elsewhere is compared with.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Boolean, Column, Connection, Integer, Table, Text, bindparam, cast, insert, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.types import JSON

from clawback.errors import InvalidInput
from clawback.journal.schema import approvals, audit, findings, incidents, overrides, receipts, timeline, votes

__all__ = ["TABLES", "AuditEntry", "Fault", "Touched", "append", "digest", "entries", "head", "stored", "verify"]

TABLES: dict[str, Table] = {
    "incident": incidents,
    "finding": findings,
    "receipt": receipts,
    "line": timeline,
    "approval": approvals,
    "vote": votes,
    "override": overrides,
}
"""Kind of an entry → the table whose row it is about."""

MOST_FAULTS = 100
_FIRST = b"\0" * 32  # what stands before the first entry


def _stored(column: Column[Any]) -> Any:
    """As it is stored: JSON as its text, a boolean as its number. What is parsed would hide a change of its bytes."""
    if isinstance(column.type, JSON):
        return cast(column, Text).label(column.name)
    if isinstance(column.type, Boolean):
        return cast(column, Integer).label(column.name)
    return column


def stored(table: Table) -> tuple[Any, ...]:
    """The columns of a row as `digest` takes them."""
    return tuple(_stored(column) for column in table.columns)


# Built once, as in `store`.
_BOOLEANS = frozenset(c.name for table in TABLES.values() for c in table.columns if isinstance(c.type, Boolean))
_ALL = {kind: select(*stored(table)) for kind, table in TABLES.items()}
_SOME = {kind: query.where(TABLES[kind].c.id.in_(bindparam("refs", expanding=True))) for kind, query in _ALL.items()}
_HEAD = select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
_ENTRY = insert(audit)
_WALK = select(audit).order_by(audit.c.seq)


@dataclass(frozen=True, slots=True)
class Touched:
    """A row that a transaction made or changed: its kind and id, whose incident, what happened, and by whom.

    digest   of the row as this change left it, where that is known
    """

    kind: str
    ref: str | int
    incident: str
    what: str
    actor: str = ""
    digest: bytes | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One entry, as stored; `digest` and `hash` are hexadecimal SHA-256."""

    seq: int
    at_ns: int
    incident: str
    kind: str
    ref: str
    what: str
    actor: str
    digest: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that does not fit: where, and why."""

    where: str
    why: str


def _canonical(value: Any) -> bytes:
    # `repr` stands for what no column of ours holds: somebody changed a value's type.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=repr).encode()


def digest(row: Any) -> bytes:
    """Of a row that was read as `stored`."""
    values = {
        name: bool(value) if name in _BOOLEANS and value in (0, 1) else value
        for name, value in row._mapping.items()  # noqa: SLF001 - SQLAlchemy's documented name
    }
    return hashlib.sha256(_canonical(values)).digest()


def _hash(before: bytes, entry: dict[str, Any]) -> bytes:
    said = {name: value for name, value in entry.items() if name not in {"hash", "digest"}}
    digest = entry["digest"] if isinstance(entry["digest"], bytes) else b""
    return hashlib.sha256(before + digest + _canonical(said)).digest()


def append(connection: Connection, touched: list[Touched]) -> None:
    """Write the entries of a transaction that is about to be committed; the last thing it does.

    Writers stand in line (`database`), so that nobody else's entry comes between the head that is read and these.
    """
    if not touched:
        return
    last = connection.execute(_HEAD).one_or_none()
    seq, before = (last.seq, last.hash) if last is not None else (0, _FIRST)
    now = time.time_ns()
    digests = _digests(connection, touched)
    rows: list[dict[str, Any]] = []
    for one in dict.fromkeys(touched):
        seq += 1
        entry = {
            "seq": seq,
            "at_ns": now,
            "incident": one.incident,
            "kind": one.kind,
            "ref": str(one.ref),
            "what": one.what[:512],
            "actor": one.actor[:256],
            "digest": digests[one.kind, one.ref],
        }
        before = entry["hash"] = _hash(before, entry)
        rows.append(entry)
    connection.execute(_ENTRY, rows)


def _digests(connection: Connection, touched: list[Touched]) -> dict[tuple[str, str | int], bytes]:
    """Of each row as it stands now: as its last change left it, or read, those of a kind by one statement."""
    last = {(one.kind, one.ref): one.digest for one in touched}
    refs: dict[str, list[str | int]] = {}
    for kind, ref in (row for row, known in last.items() if known is None):
        refs.setdefault(kind, []).append(ref)
    known = {row: known for row, known in last.items() if known is not None}
    return known | {
        (kind, row.id): digest(row)
        for kind, ids in refs.items()
        for row in connection.execute(_SOME[kind], {"refs": ids})
    }


def head(connection: Connection) -> str:
    """`SEQ:HASH` of the newest entry, to be noted elsewhere; `0:` of an empty record."""
    last = connection.execute(_HEAD).one_or_none()
    return f"{last.seq}:{last.hash.hex()}" if last is not None else "0:"


def entries(connection: Connection) -> Iterator[AuditEntry]:
    """The whole record, oldest first, as it is, sound or not."""
    for row in connection.execution_options(yield_per=1000).execute(_WALK):
        values = dict(row._mapping)  # noqa: SLF001 - as above
        yield AuditEntry(**values | {"digest": row.digest.hex(), "hash": row.hash.hex()})


def _noted(given: str) -> tuple[int, str]:
    number, _, value = given.partition(":")
    if not number.isdecimal() or (value and len(value) != 64):
        raise InvalidInput(f"{given[:80]!a} is not a head", hint="SEQ:HASH, as `clawback audit head` prints it")
    return int(number), value


def verify(connection: Connection, *, noted: str = "") -> tuple[int, list[Fault]]:
    """How many entries there are, and what does not fit: at most `MOST_FAULTS`, the first ones.

    `noted` is a head that was written down elsewhere earlier: the record must still contain it.
    """
    anchor = _noted(noted) if noted else (0, "")
    faults: list[Fault] = []
    try:
        if connection.dialect.name == "sqlite":  # an index that was changed would hide rows that are as they were
            said = connection.exec_driver_sql("PRAGMA integrity_check(10)").scalars().all()
            faults += [Fault(where="database", why=str(line)[:200]) for line in said if line != "ok"]
        count, latest = _verify_chain(connection, anchor, faults)
        _verify_rows(connection, latest, faults)
    except (DatabaseError, UnicodeDecodeError) as error:
        why = str(getattr(error, "orig", "it holds text that is none"))
        if isinstance(error, OperationalError) and "decode" not in why and "malformed" not in why:
            raise  # it does not answer, which says nothing about what is in it
        faults.append(Fault(where="database", why=f"cannot be read: {why[:200]}"))
        return 0, faults[:MOST_FAULTS]
    return count, faults[:MOST_FAULTS]


def _verify_chain(
    connection: Connection, anchor: tuple[int, str], faults: list[Fault]
) -> tuple[int, dict[tuple[str, str], bytes]]:
    """The entries, each against the one before it; and the newest digest of each row."""
    latest: dict[tuple[str, str], bytes] = {}
    expected, before, count = 1, _FIRST, 0
    for row in connection.execution_options(yield_per=1000).execute(_WALK):
        count += 1
        entry = dict(row._mapping)  # noqa: SLF001 - as above
        if row.seq != expected:
            faults.append(Fault(where=f"entry {expected}", why=f"is missing; {row.seq} follows"))
        elif _hash(before, entry) != row.hash:
            faults.append(Fault(where=f"entry {row.seq}", why="was changed, or the entry before it was"))
        if row.seq == anchor[0] and _hex(row.hash) != anchor[1]:
            faults.append(Fault(where=f"entry {row.seq}", why="is not the one that was noted"))
        latest[row.kind, row.ref] = row.digest
        if not isinstance(row.seq, int) or not isinstance(row.hash, bytes) or len(faults) >= MOST_FAULTS:
            faults.append(Fault(where=f"entry {row.seq!a}"[:80], why="is the last that was looked at"))
            return count, latest
        expected, before = row.seq + 1, row.hash
    if anchor[0] >= expected:
        faults.append(
            Fault(where=f"entry {anchor[0]}", why=f"was noted and is gone; the record ends at {expected - 1}")
        )
    return count, latest


def _verify_rows(connection: Connection, latest: dict[tuple[str, str], bytes], faults: list[Fault]) -> None:
    """Every row against its newest entry."""
    for kind, statement in _ALL.items():
        for row in connection.execution_options(yield_per=1000).execute(statement):
            known = latest.pop((kind, str(row.id)), None)
            if known is None:
                faults.append(Fault(where=f"{kind} {row.id}", why="is in no entry: it was put in from outside"))
            elif known != digest(row):
                faults.append(Fault(where=f"{kind} {row.id}", why="is not as its newest entry saw it"))
            if len(faults) >= MOST_FAULTS:
                return
    faults += [Fault(where=f"{kind} {ref}", why="was taken out") for kind, ref in latest]


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)
