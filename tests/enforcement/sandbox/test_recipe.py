"""Recipes: both shims know the same operations, and neither takes what is no recipe."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawback.enforcement import native
from clawback.enforcement.sandbox import cage, making, shim, wire
from clawback.enforcement.sandbox.follow import Follower
from clawback.enforcement.sandbox.recipe import CageHead, Fields, Op, steps, write
from clawback.enforcement.sandbox.recipe import cage as as_bytes

NATIVE = Path(native.__file__).parent
OUTSIDE = {Op.WAIT, Op.READY, Op.EXEC}  # the first process's own


def test_the_c_side_has_the_same_numbers() -> None:
    found = {name: int(number) for name, number in re.findall(r"OP_(\w+) = (\d+),", (NATIVE / "shim.h").read_text())}
    assert found == {op.name: int(op) for op in Op}


def test_each_operation_is_followed_on_both_sides() -> None:
    code = "".join(path.read_text() for path in NATIVE.glob("*.c"))
    for op in Op:
        assert re.search(rf"\bOP_{op.name}\b", code), op
        assert op in OUTSIDE or hasattr(Follower, f"_{op.name.lower()}"), op


fields = st.lists(
    st.integers(-(1 << 63), (1 << 63) - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=20)
    | st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=9), max_size=4),
    max_size=6,
)


def read(found: Fields, wanted: Any) -> Any:
    match wanted:
        case int():
            return found.number()
        case bytes():
            return found.data()
        case str():
            return found.text()
        case _:
            return found.texts()


@given(st.lists(st.tuples(st.sampled_from(list(Op)), fields), max_size=8))
def test_what_is_written_is_read(wanted: list[tuple[Op, list[Any]]]) -> None:
    data = b"".join(write(op, *values) for op, values in wanted)
    for (op, found), (expected, values) in zip(steps(data), wanted, strict=True):
        assert op is expected
        assert [read(found, value) for value in values] == values
        found.done()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_recipe_or_an_error(data: bytes) -> None:
    try:
        for _op, found in steps(data):
            found.texts()
    except ValueError:
        pass


# --- a shim that is given something else ------------------------------------------------------------------------------


def ask(way: str, recipe: bytes, fds: Sequence[int] = (), job: bytes | None = None) -> tuple[dict[str, Any], int]:
    """What a shim answers last, and how it ended; it may not be killed by a signal, nor leave anything."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            if way == "native":
                program = os.open(NATIVE / native.NAME, os.O_PATH | os.O_CLOEXEC)
                host = making.Host(hierarchies=making.cgroups.Hierarchies(), group="", mounts=False, program=program)
                order = making.Order(recipe=recipe, fds=tuple(fds), leaf=making.cgroups.Leaf())
                pid = making.spawn(host, order, theirs.fileno())
                os.close(program)
            elif (pid := os.fork()) == 0:
                ours.close()
                try:
                    shim.serve(theirs, recipe)
                finally:
                    os._exit(0)
        ours.settimeout(10)
        message: dict[str, Any] = {}
        try:
            message, _ = wire.receive(ours)
            if job is not None and "ready" in message:
                folder = os.open("/dev/null", os.O_RDONLY)
                wire.send_bytes(ours, job, [folder] * 5)
                os.close(folder)
                message, _ = wire.receive(ours)
        except (wire.Closed, ConnectionResetError):
            pass
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
        ours.shutdown(socket.SHUT_RDWR)
        _, status = os.waitpid(pid, 0)
    return message, os.waitstatus_to_exitcode(status)


def head(**more: Any) -> CageHead:
    uid_map, gid_map = cage.maps(os.getuid())
    known: dict[str, Any] = {
        "flags": cage.NAMESPACES, "group": -1, "uid_map": uid_map, "gid_map": gid_map, "about": "{}", "leaves": (),
        "fds": (),
    }  # fmt: skip
    return CageHead(**known | more)


ready = write(Op.WAIT) + write(Op.LISTEN, 3128, 1) + write(Op.READY)


@pytest.mark.kernel
@pytest.mark.usefixtures("way")
class TestShims:
    def test_a_plain_cage_is_ready_and_goes_when_its_starter_does(self, way: str) -> None:
        message, status = ask(way, as_bytes(head(), ready))
        assert message["ready"] > 0
        assert message["about"] == {}
        assert status == 0

    @pytest.mark.parametrize(
        "operations",
        [
            write(Op.WAIT) + b"\xff\x7f\0\0\0\0",
            write(Op.WAIT) + write(Op.HOSTNAME),
            write(Op.WAIT) + write(Op.HOSTNAME, b"a\0b"),
            write(Op.WAIT) + write(Op.LOOPBACK, 1),
            write(Op.WAIT) + write(Op.ATTACH, 0, "/"),
            write(Op.WAIT) + write(Op.JOIN, -1),
            write(Op.WAIT) + write(Op.HOSTNAME, "x")[:-1],
            write(Op.WAIT) + write(Op.SECCOMP, 0, b"1234567"),
            write(Op.WAIT),
        ],
        ids=["unknown", "no-field", "zero-byte", "too-much", "no-descriptor", "below", "cut", "program", "not-ready"],
    )
    def test_what_is_no_cage_is_refused(self, way: str, operations: bytes) -> None:
        message, status = ask(way, as_bytes(head(), operations))
        assert message.get("error"), message
        assert status >= 0

    def test_a_head_that_ends_anywhere_is_refused(self, way: str) -> None:
        whole = as_bytes(head(leaves=("/nowhere",), fds=(0,)), b"")
        for length in range(1, len(whole), 7):
            message, status = ask(way, whole[:length])
            assert "ready" not in message
            assert status >= 0

    @pytest.mark.parametrize("job", [b"", b"\0" * 8, b"\1" + b"\0" * 7 + b"\x22\0\xff\xff\xff\xff"])
    def test_what_is_no_job_is_refused(self, way: str, job: bytes) -> None:
        message, status = ask(way, as_bytes(head(), ready), job=job)
        assert "error" in message or message == {}
        assert status >= 0


def test_a_way_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "fortran")
    with pytest.raises(native.InvalidInput, match="fortran"):
        native.way()


def test_a_program_from_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / native.NAME
    program.write_text("#!/bin/sh\necho other\n")
    program.chmod(0o755)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.delenv(native.VARIABLE, raising=False)
    assert native.way().program is None
    assert "other sources" in native.way().why
    monkeypatch.setenv(native.VARIABLE, "native")
    with pytest.raises(native.InvalidInput, match="other sources"):
        native.way()
    program.unlink()
    with pytest.raises(native.InvalidInput, match="not compiled"):
        native.way()
