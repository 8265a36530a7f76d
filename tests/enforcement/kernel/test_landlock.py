"""Landlock right by right and ABI by ABI, as processes that are under it see it; older ABIs by masking."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.kernel import landlock, libc
from clawback.enforcement.quarantine.sealed import landlock_everything
from clawback.enforcement.sandbox import recipe
from clawback.enforcement.sandbox.follow import Follower
from clawback.enforcement.sandbox.recipe import Op

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(landlock.abi() < 1, reason="this kernel has no Landlock")]

HERE = landlock.abi()
VERSIONS = range(1, min(HERE, 7) + 1)


def operations(
    version: int, *, read: Sequence[str] = (), write: Sequence[str] = (), ports: Sequence[int] = ()
) -> bytes:
    """A recipe for a ruleset of this ABI, as shims follow it."""
    known = landlock.rights(version)
    paths = [(path, known.read) for path in read] + [(path, known.write) for path in write]
    return b"".join(
        [
            recipe.write(Op.LANDLOCK, *known.attributes, known.size),
            *(recipe.write(Op.LANDLOCK_PATH, path, rights, rights & known.file_only) for path, rights in paths),
            *(recipe.write(Op.LANDLOCK_PORT, known.connect, port) for port in ports if known.connect),
            recipe.write(Op.PRCTL, 38, 1, 0, 0, 0),
            recipe.write(Op.LANDLOCK_ENFORCE, known.flags),
        ]
    )


def under(version: int, attempt: Callable[[], object], **allow: Any) -> int:
    """What an attempt comes to in a child under a ruleset of this ABI that allows this: an errno, 0 for success."""
    child = os.fork()
    if child == 0:
        status = 255
        try:
            Follower().follow(operations(version, **allow))
            try:
                attempt()
                status = 0
            except OSError as error:
                status = error.errno or 255
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        (path / "a").mkdir()
        (path / "b").mkdir()
        (path / "a" / "file").write_text("x" * 100)
        yield path


@pytest.mark.parametrize("version", VERSIONS)
def test_files_that_are_not_allowed_do_not_open(version: int, folder: Path) -> None:
    file = folder / "a" / "file"
    assert under(version, file.read_text) == errno.EACCES
    assert under(version, file.read_text, read=[str(folder)]) == 0
    assert under(version, lambda: file.write_text("y"), read=[str(folder)]) == errno.EACCES
    assert under(version, lambda: file.write_text("y"), write=[str(folder)]) == 0
    assert under(version, lambda: list(folder.iterdir())) == errno.EACCES
    assert under(version, (folder / "new").mkdir, read=[str(folder)]) == errno.EACCES
    assert (
        under(
            version,
            lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - what is tried
            read=[str(folder)],
        )
        == errno.EACCES
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_files_move_between_folders_from_abi_2(version: int, folder: Path) -> None:
    def move() -> None:
        (folder / "a" / "file").rename(folder / "b" / "file")

    allowed = {"write": [str(folder)]}
    assert under(version, move, **allowed) == (0 if version >= 2 else errno.EXDEV)


@pytest.mark.parametrize("version", VERSIONS)
def test_truncating_is_a_right_from_abi_3(version: int, folder: Path) -> None:
    file = folder / "a" / "file"
    assert under(version, lambda: os.truncate(file, 1), read=[str(folder)]) == (errno.EACCES if version >= 3 else 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_tcp_ports_from_abi_4(version: int) -> None:
    def bind() -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        address = door.getsockname()

        def connect() -> None:
            with socket.socket() as one:
                one.connect(address)

        denied = errno.EACCES if version >= 4 else 0
        assert under(version, bind) == denied
        assert under(version, connect) == denied
        assert under(version, connect, ports=[address[1]]) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_device_ioctls_from_abi_5(version: int) -> None:
    def ask() -> None:
        with Path("/dev/zero").open("rb") as device:
            fcntl.ioctl(device, 0x1234)

    # Allowed, the driver answers that it knows no such request.
    assert under(version, ask, read=["/dev"]) == (errno.EACCES if version >= 5 else errno.ENOTTY)
    assert under(version, ask, write=["/dev"]) == errno.ENOTTY


@pytest.mark.parametrize("version", VERSIONS)
def test_abstract_sockets_and_signals_are_scoped_from_abi_6(version: int) -> None:
    name = f"\0clawback-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(name)
        door.listen()

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(name)

        denied = errno.EPERM if version >= 6 else 0
        assert under(version, connect) == denied
        parent = os.getpid()
        assert under(version, lambda: os.kill(parent, 0)) == denied
        assert under(version, lambda: os.kill(os.getpid(), 0)) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_flags_of_the_audit_from_abi_7(version: int) -> None:
    assert landlock.rights(version).flags == (3 if version >= 7 else 0)


def test_what_the_kernel_accepts_is_what_its_abi_has() -> None:
    files, network, scopes = landlock.accepted()
    known = landlock.rights().attributes
    for found, expected in zip((files, network, scopes), known, strict=True):
        # A kernel newer than this table has more, never less.
        assert found & expected == expected
        assert HERE > 7 or found == expected


def test_the_seal_denies_every_right_that_the_kernel_takes() -> None:
    block = landlock_everything()
    words = struct.unpack(f"={len(block) // 8}Q", block)
    assert words == tuple(word for word in landlock.accepted() if word)
    descriptor = libc.syscall("landlock_create_ruleset", ctypes.create_string_buffer(block), len(block), 0)
    os.close(descriptor)


def test_without_landlock_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> int:
        raise OSError(errno.ENOSYS, "masked")

    monkeypatch.setattr(libc, "syscall", absent)
    assert landlock.abi() == 0
    assert landlock.accepted() == (0, 0, 0)
    assert landlock.rights().size == 8
    assert landlock.rights().version == 0
