"""The values of agents' credentials, in files that only their owner can read.

    STATE/secrets/AGENT/NAME/current -> v-1f…/value     what the agent was or will be given; opened, it reads as it
                             next    -> v-a0…/value     staged: issued, not yet given to anybody
                             old     -> v-77…/value     what was current before, kept for the proof that it is refused
                             begun                      an issuer is being asked for a value (see `begin`)
                             v-HEX/{value,ref.json}     one value and what identifies it, never changed once written

Folders are 0700, files 0600. A version is written and synced whole before a link points at it, and a link is moved by
one rename, so a crash at any point leaves either the value before or the value after, with the reference that belongs
to it. What no link points at is destroyed by the next change.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from clawback.errors import ClawbackError, InvalidInput, NotFound, Unreachable
from clawback.model import CredentialRef

__all__ = ["FileSecretStore"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LINKS = ("current", "next", "old")
_MAX_VALUE_BYTES = 1 << 20


class FileSecretStore:
    """`clawback.world.SecretStore` in a folder. Safe between threads and processes: each agent's folder is locked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self, agent: str, name: str) -> str:
        """The value in force. `NotFound` where there is none."""
        value = self._value(agent, name, "current")
        if value is None:
            raise NotFound(f"agent {agent} has no secret {name}", hint="`clawback agents` lists what agents hold")
        return value

    def old(self, agent: str, name: str) -> str | None:
        """The value before the last `promote`, None once discarded."""
        return self._value(agent, name, "old", unless="current")

    def staged(self, agent: str, name: str) -> str | None:
        """The next value, None where none waits."""
        return self._value(agent, name, "next", unless="current")

    def staged_ref(self, agent: str, name: str) -> CredentialRef | None:
        """What identifies the staged value."""
        return _follow(self._home(agent, name), "next", _read_ref, unless="current")

    def put(self, agent: str, ref: CredentialRef, value: str) -> None:
        """Set the current value outright."""
        with self._locked(agent, ref.name) as home:
            _point(home, "current", _write_version(home, ref, value))
            _sweep(home)

    def begin(self, agent: str, name: str) -> bool:
        """Note that an issuer is about to be asked; True where an earlier note still stands."""
        with self._locked(agent, name) as home:
            if (home / "begun").exists():
                return True
            _write(home / "begun", b"")
            _sync(home)
            return False

    def asked(self, agent: str, name: str) -> bool:
        """Whether the note of `begin` stands."""
        return (self._home(agent, name) / "begun").exists()

    def abandon(self, agent: str, name: str) -> None:
        """Destroy the next value and take away the note."""
        with self._locked(agent, name) as home:
            (home / "next").unlink(missing_ok=True)
            (home / "begun").unlink(missing_ok=True)
            _sweep(home)

    def stage(self, agent: str, ref: CredentialRef, value: str) -> None:
        """Set the next value; returns once it would survive a power cut."""
        with self._locked(agent, ref.name) as home:
            _point(home, "next", _write_version(home, ref, value))
            # Only now: until the value is safe, the note is all that tells of a credential whose value may be lost.
            (home / "begun").unlink(missing_ok=True)
            _sweep(home)

    def promote(self, agent: str, name: str, *, keep_old: bool = False) -> None:
        """Next becomes current, current becomes old, unless one is to be kept. Without a staged one, nothing."""
        with self._locked(agent, name) as home:
            following, present = _target(home, "next"), _target(home, "current")
            if following is not None:
                if following != present:  # equal: an earlier promote was cut off after its second step
                    if present is not None and not (keep_old and _target(home, "old")):
                        _point(home, "old", present)
                    _point(home, "current", following)
                (home / "next").unlink()
            _sweep(home)

    def discard(self, agent: str, name: str) -> None:
        """Destroy the old value."""
        with self._locked(agent, name) as home:
            (home / "old").unlink(missing_ok=True)
            _sweep(home)

    def version(self, agent: str, name: str) -> str:
        """The current value's own folder, by its random name. `NotFound` where there is none."""
        version = _target(self._home(agent, name), "current")
        if version is None:
            raise NotFound(f"agent {agent} has no secret {name}", hint="`clawback agents` lists what agents hold")
        return version

    def refs(self, agent: str) -> tuple[CredentialRef, ...]:
        """What identifies each current value, in order of name."""
        folder = self._folder / _checked(agent, "agent")
        if not folder.is_dir():
            return ()
        refs = (_follow(home, "current", _read_ref) for home in sorted(folder.iterdir()))
        return tuple(ref for ref in refs if ref is not None)

    def _home(self, agent: str, name: str) -> Path:
        return self._folder / _checked(agent, "agent") / _checked(name, "secret name")

    def _value(self, agent: str, name: str, link: str, *, unless: str = "") -> str | None:
        return _follow(self._home(agent, name), link, _read_value, unless=unless)

    @contextmanager
    def _locked(self, agent: str, name: str) -> Iterator[Path]:
        home = self._home(agent, name)
        try:
            _make_private(home, upto=self._folder)
            handle = os.open(home.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield home
            finally:
                os.close(handle)
        except OSError as error:  # a full disk, as a rule: the step is pending, and is gone on with when there is space
            raise Unreachable(
                f"secret {name} of {agent} could not be kept: {error.strerror}",
                hint="check space and permissions; `clawback resume` goes on",
            ) from None


def _checked(text: str, what: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{what} {text[:64]!r} cannot name a file", hint="letters, digits, dot, dash and underscore; at most 128"
        )
    return text


def _make_private(home: Path, *, upto: Path) -> None:
    for folder in (upto, home.parent, home):
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            continue
        _sync(folder.parent)


def _write_version(home: Path, ref: CredentialRef, value: str) -> str:
    encoded = value.encode()
    if len(encoded) > _MAX_VALUE_BYTES:
        raise InvalidInput(f"secret {ref.name} is longer than {_MAX_VALUE_BYTES} bytes")
    version = home / f"v-{secrets.token_hex(8)}"
    version.mkdir(mode=0o700)
    _write(version / "value", encoded)
    _write(version / "ref.json", json.dumps(asdict(ref)).encode())
    _sync(version)
    _sync(home)
    return version.name


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)


def _point(home: Path, link: str, version: str) -> None:
    """Move a link in one step, durably."""
    fresh = home / f".{link}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(f"{version}/value")
    fresh.rename(home / link)
    _sync(home)


def _target(home: Path, link: str) -> str | None:
    try:
        return (home / link).readlink().parent.name
    except (FileNotFoundError, NotADirectoryError):
        return None


_Read = TypeVar("_Read")


def _follow(home: Path, link: str, read: Callable[[Path], _Read], *, unless: str = "") -> _Read | None:
    """Read the version that a link points at; None where it points nowhere, or where `unless` points."""
    while (version := _target(home, link)) is not None:
        if unless and version == _target(home, unless):
            return None
        try:
            return read(home / version)
        except FileNotFoundError:
            if _target(home, link) == version:  # else it was moved, and its version swept, between our two steps
                raise
    return None


def _sweep(home: Path) -> None:
    kept = {_target(home, link) for link in _LINKS}
    for entry in home.iterdir():
        if entry.name.startswith("v-") and entry.name not in kept:
            shutil.rmtree(entry)
    _sync(home)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAX_VALUE_BYTES)


def _read_value(version: Path) -> str:
    return _read_bounded(version / "value").decode()


def _read_ref(version: Path) -> CredentialRef:
    path = version / "ref.json"
    text = _read_bounded(path)
    try:
        raw: dict[str, Any] = json.loads(text)
        return CredentialRef(
            kind=str(raw["kind"]),
            name=str(raw["name"]),
            identifiers={str(key): str(item) for key, item in raw["identifiers"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClawbackError(
            f"{path}: not a credential reference ({type(error).__name__})",
            hint="set this secret anew; its value is untouched",
        ) from None
