"""Keeps every version of every policy: `STATE/policies/NAME/{versions.jsonl,current.yaml,lock}`.

A version is recorded first and published to `current.yaml` second. Whoever next takes the lock finishes a publication
that a crash interrupted. `current.yaml` is there to be edited: a sound edit becomes a version, an unsound one changes
nothing but is remembered, and kept as `refused.yaml` when it is overwritten.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.log import Log, append, fsync_folder, read_log
from clawback.enforcement.policy.network import NAME
from clawback.enforcement.policy.nodes import MAX_BYTES
from clawback.enforcement.policy.ownership import give
from clawback.errors import ClawbackError, InvalidInput, NotFound
from clawback.model import PolicyVersion

__all__ = ["Edit", "PolicyStore"]

_MAX_DIFF = 256 * 1024
Stamp = tuple[int, int, int]  # inode, size, mtime in ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What looking at `current.yaml` came to: a new version, or why there is none. Both empty: nothing was edited."""

    version: PolicyVersion | None = None
    refused: ClawbackError | None = None
    sha256: str = ""
    author: str = ""


@dataclass(slots=True)
class _Cached:
    log: Log
    stamp: Stamp


@dataclass(slots=True)
class PolicyStore:
    """The versions under `folder`. Any number of processes may use one folder; each write is locked and durable."""

    folder: Path
    _cache: dict[str, _Cached] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Policies that have a version."""
        if not self.folder.is_dir():
            return ()
        return tuple(
            sorted(p.parent.name for p in self.folder.glob("*/versions.jsonl") if NAME.fullmatch(p.parent.name))
        )

    def versions(self, policy: str) -> tuple[PolicyVersion, ...]:
        """All versions, oldest first. `NotFound` without any."""
        return tuple(self._known(policy).versions.values())

    def active(self, policy: str) -> PolicyVersion:
        """The newest version."""
        last = self._known(policy).last
        if last is None:
            raise NotFound(f"no policy {policy!r}", hint="see `clawback policy list`")
        return last

    def version(self, policy: str, number: int) -> PolicyVersion:
        """One version."""
        try:
            return self._known(policy).versions[number]
        except KeyError:
            raise NotFound(f"policy {policy!r} has no version {number}", hint="see `clawback policy list`") from None

    def read(self, policy: str, number: int) -> str:
        """One version's text."""
        self.version(policy, number)
        return self._known(policy).texts[number]

    def put(
        self, policy: str, text: str, *, author: str, reason: str, incident: str = "", known_good: bool = False
    ) -> PolicyVersion:
        """Record and publish a text. Equal to the active one: that version. Unsound: `InvalidInput`, no change."""
        load(text, where=f"policy {policy}")
        with self._locked(policy, create=True) as log:
            return self._put(policy, log, text, author=author, reason=reason, incident=incident, known_good=known_good)

    def restore(self, policy: str, number: int, *, author: str, reason: str, incident: str = "") -> PolicyVersion:
        """A new version whose text is `number`'s; the active one, if its text is that already."""
        text = self.read(policy, number)
        return self.put(policy, text, author=author, reason=reason, incident=incident)

    def mark_known_good(self, policy: str, number: int, *, author: str) -> PolicyVersion:
        """Mark a version as what recovery may return to."""
        self.version(policy, number)
        with self._locked(policy) as log:
            self._mark(policy, log, number, author)
            return log.versions[number]

    def known_good(self, policy: str) -> PolicyVersion:
        """The newest version that is marked. `NotFound` without one."""
        for version in reversed(self.versions(policy)):
            if version.known_good:
                return version
        raise NotFound(f"policy {policy!r} has no known-good version", hint="mark one when it was reviewed")

    def edited(self, policy: str) -> Edit:
        """Take an edit of `current.yaml`, if there is one that was not taken or refused before."""
        with self._locked(policy) as log:
            return self._take_edit(policy, log)

    def stamp(self, policy: str) -> tuple[Stamp, Stamp]:
        """What `current.yaml` and the record look like from outside; changes when either is written. Cheap to poll."""
        base = self._base(policy)
        return _stamp(base / "current.yaml"), _stamp(base / "versions.jsonl")

    # From here on: with the lock held.

    def _put(
        self, policy: str, log: Log, text: str, *, author: str, reason: str, incident: str, known_good: bool
    ) -> PolicyVersion:
        base = self._base(policy)
        self._take_edit(policy, log)
        last = log.last
        if last is None or log.texts[last.version] != text:
            before = log.texts[last.version] if last else ""
            number = len(log.versions) + 1
            record = {
                "kind": "version",
                "policy": policy,
                "version": number,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "author": author,
                "reason": reason,
                "incident": incident,
                "created_ns": time.time_ns(),
                "known_good": known_good,
                "diff": _diff(before, text, number),
                "text": text,
            }
            append(base / "versions.jsonl", log, record)
            last = log.versions[number]
        elif known_good and not last.known_good:
            self._mark(policy, log, last.version, author)
        self._publish(policy, log)
        return log.versions[last.version]

    def _mark(self, policy: str, log: Log, number: int, author: str) -> None:
        if not log.versions[number].known_good:
            record = {"kind": "known_good", "version": number, "author": author, "created_ns": time.time_ns()}
            append(self._base(policy) / "versions.jsonl", log, record)

    def _publish(self, policy: str, log: Log) -> None:
        """Make `current.yaml` the newest version, whatever it is now; then write down that it is."""
        last = log.last
        if last is None:
            return
        base = self._base(policy)
        path, text = base / "current.yaml", log.texts[last.version].encode()
        there = _contents(path)
        if there != text:
            if there is not None and hashlib.sha256(there).hexdigest() not in {v.sha256 for v in log.versions.values()}:
                _replace(base / "refused.yaml", there)
            _replace(path, text)
        if log.published != last.version:
            append(base / "versions.jsonl", log, {"kind": "published", "version": last.version})

    def _take_edit(self, policy: str, log: Log) -> Edit:
        last = log.last
        if last is None:
            return Edit()
        path = self._base(policy) / "current.yaml"
        there = _contents(path)
        digest = hashlib.sha256(there).hexdigest() if there is not None else ""
        if log.published != last.version:
            # A crash came between record and publication: the text before the newest version is no edit, but old.
            old = log.versions.get(last.version - 1)
            if there is None or digest in (last.sha256, old.sha256 if old else ""):
                self._publish(policy, log)
                return Edit()
        if digest == last.sha256:
            return Edit()
        if there is None:
            gone = InvalidInput(f"{path}: missing, not a file, or above {MAX_BYTES} bytes", hint="restore a version")
            return Edit(refused=gone, author="file")
        author = f"file:uid={path.lstat().st_uid}"
        try:
            load(there, where=str(path))
        except InvalidInput as error:
            return Edit(refused=error, sha256=digest, author=author)
        record = {
            "kind": "version",
            "policy": policy,
            "version": last.version + 1,
            "sha256": digest,
            "author": author,
            "reason": "current.yaml was edited",
            "incident": "",
            "created_ns": time.time_ns(),
            "known_good": False,
            "diff": _diff(log.texts[last.version], there.decode(), last.version + 1),
            "text": there.decode(),
        }
        versions = self._base(policy) / "versions.jsonl"
        append(versions, log, record)
        append(versions, log, {"kind": "published", "version": last.version + 1})
        return Edit(version=log.last, sha256=digest, author=author)

    def _base(self, policy: str) -> Path:
        if not NAME.fullmatch(policy):
            raise InvalidInput(
                f"{policy[:80]!r} is not a policy name", hint="lower-case letters, digits, '-', '_' and '.', at most 63"
            )
        return self.folder / policy

    def _known(self, policy: str) -> Log:
        path = self._base(policy) / "versions.jsonl"
        now, cached = _stamp(path), self._cache.get(policy)
        if cached is None or cached.stamp != now:
            # Read after the stamp: what is appended in between makes the next stamp differ.
            cached = self._cache[policy] = _Cached(read_log(path), now)
        if not cached.log.versions:
            raise NotFound(f"no policy {policy!r}", hint="see `clawback policy list`")
        return cached.log

    @contextlib.contextmanager
    def _locked(self, policy: str, *, create: bool = False) -> Iterator[Log]:
        base = self._base(policy)
        if create and not base.is_dir():
            base.mkdir(mode=0o755, parents=True, exist_ok=True)
            _own_like(base, self.folder)
            fsync_folder(self.folder)
        if not base.is_dir():
            raise NotFound(f"no policy {policy!r}", hint="see `clawback policy list`")
        fd = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self._cache.pop(policy, None)
            yield read_log(base / "versions.jsonl")
            for name in ("lock", "versions.jsonl", "current.yaml", "refused.yaml"):
                _own_like(base / name, base)
        finally:
            os.close(fd)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _contents(path: Path) -> bytes | None:
    """A regular file's bytes; None where it is missing, something else, or too big to be a policy."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = file.read(MAX_BYTES + 1)
    return data if len(data) <= MAX_BYTES else None


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    beside.rename(path)
    fsync_folder(path.parent)


def _own_like(path: Path, folder: Path) -> None:
    """As root, give a file to its folder's owner: the gateway, which is not root, must be able to write it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        give(path, owner.st_uid, owner.st_gid)


def _diff(before: str, after: str, number: int) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"version {number - 1}", f"version {number}"
    )
    text = "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
    return text if len(text) <= _MAX_DIFF else text[:_MAX_DIFF] + "\n… cut\n"
