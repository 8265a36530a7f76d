"""What needs no kernel's help: the filter assembler, interpreters, mount tables, messages, plans."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawback.enforcement.kernel import cgroups
from clawback.enforcement.kernel.seccomp import ALLOW, Action, Check, Condition, assemble, deny
from clawback.enforcement.kernel.syscalls import TABLES
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.sandbox import filters, wire
from clawback.enforcement.sandbox.interpreter import needed, too_wide
from clawback.enforcement.sandbox.slot import Slot
from clawback.enforcement.sandbox.spares import Spares
from clawback.errors import ClawbackError

KILL = 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), *, arch: int) -> int:
    """Interpret a classic BPF program over one `struct seccomp_data`."""
    words = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *words)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15:
                at += yes if accumulator == k else no
            case 0x35:
                at += yes if accumulator >= k else no
            case 0x45:
                at += yes if accumulator & k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(operation)


def decide(action: Action, arguments: tuple[int, ...]) -> int:
    """What an action means, said plainly."""
    if isinstance(action, int):
        return action
    for conditions, result in action.rules:
        if all(
            (arguments[c.argument] & 0xFFFFFFFF & c.mask) in c.values
            if c.values
            else arguments[c.argument] & 0xFFFFFFFF & c.mask
            for c in conditions
        ):
            return result
    return action.otherwise


conditions = st.builds(
    Condition, st.integers(0, 5), st.sampled_from([0xF, 0xFFFFFFFF, 0x10]), st.tuples() | st.tuples(st.integers(0, 20))
    | st.tuples(st.integers(0, 20), st.integers(0, 20)),
)  # fmt: skip
results = st.sampled_from([ALLOW, deny(), deny(errno.ENOSYS)])
checks = st.builds(
    Check, st.lists(st.tuples(st.lists(conditions, min_size=1, max_size=3).map(tuple), results), max_size=3).map(tuple),
    results,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(sorted(TABLES["x86_64"])), results | checks, max_size=60),
    results,
    st.integers(0, 500),
    st.tuples(*[st.integers(0, 40)] * 6),
)
def test_a_program_does_what_its_rules_say(
    actions: dict[str, Action], otherwise: int, number: int, arguments: tuple[int, ...]
) -> None:
    program = assemble(actions, otherwise, machine="x86_64")
    names = {number: name for name, number in TABLES["x86_64"].items()}
    expected = decide(actions.get(names.get(number, ""), otherwise), arguments)
    assert run(program, number, arguments, arch=ARCH["x86_64"]) == expected


@pytest.mark.parametrize("machine", sorted(TABLES))
def test_foreign_entries_are_closed(machine: str) -> None:
    program = assemble({"read": ALLOW}, ALLOW, machine=machine)
    assert run(program, 0, arch=0x40000003) == KILL
    if machine == "x86_64":
        assert run(program, 0x40000000 + 39, arch=ARCH[machine]) == deny()


@pytest.mark.parametrize("base", filters.BASES)
@pytest.mark.parametrize("machine", sorted(TABLES))
def test_no_profile_lets_out_and_each_fits_the_kernel(base: str, machine: str) -> None:
    numbers = TABLES[machine]
    compiled = filters.programs(SyscallPolicy(base=base), machine=machine)
    assert all(len(program.code) // 8 <= 4096 for program in compiled)

    def verdict(name: str, *arguments: int) -> int:
        # The kernel takes the strictest; among these that is the smaller value.
        return min(run(program.code, numbers[name], arguments, arch=ARCH[machine]) for program in compiled)

    for name in ("ptrace", "mount", "io_uring_setup", "io_uring_enter", "bpf", "setns", "pivot_root", "open_tree"):
        assert verdict(name) == deny()
    assert verdict("clone3") == deny(errno.ENOSYS)
    assert verdict("clone", 0x11) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict("clone", flag | 0x11) == deny()
        assert verdict("unshare", flag) == deny()
    assert verdict("execveat", 3, 0, 0, 0, 0x1000) == deny()
    # Sealing injects these; an injected filter is useless if a restarted call is refused.
    for name in ("prctl", "restart_syscall", "mmap", "munmap", "rt_sigreturn"):
        assert verdict(name) == ALLOW
    assert verdict("seccomp", 1, 1) == ALLOW
    assert verdict("seccomp", 1, 8) == deny()


@pytest.mark.parametrize(
    "path", ["/", "/root", "/home", "/home/somebody", "/proc/1", "/etc", "/dev", "/root/", "/home/x/"]
)
def test_wide_paths(path: str) -> None:
    assert too_wide(path)


@pytest.mark.parametrize("path", ["/home/somebody/work", "/srv/app", "/root/.pyenv/versions/3.11.7", "/opt"])
def test_narrow_paths(path: str) -> None:
    assert not too_wide(path)


def test_a_virtual_environment_brings_its_base(tmp_path: Path) -> None:
    base, venv = tmp_path / "base", tmp_path / "app" / ".venv"
    for folder in (base / "bin", venv / "bin"):
        folder.mkdir(parents=True)
    (base / "bin" / "python3").write_bytes(b"\x7fELF")
    (venv / "bin" / "python3").symlink_to(base / "bin" / "python3")
    (venv / "pyvenv.cfg").write_text(f"home = {base}/bin\ninclude-system-site-packages = false\n")
    tool = venv / "bin" / "tool"
    tool.write_text(f"#!{venv}/bin/python3\n")
    assert set(needed(str(tool), lambda _path: False)) == {str(venv), str(base)}


def test_a_program_alone_brings_only_itself(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    assert needed(str(program), lambda _path: False) == (str(program),)
    assert needed("/usr/bin/env", lambda _path: False) == ()
    assert needed("env", lambda _path: False) == ()


@pytest.mark.parametrize(
    ("lines", "unified", "controllers"),
    [
        (["30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"], "/sys/fs/cgroup", {}),
        (
            [
                "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct",
                "39 31 0:36 / /cg/pids rw shared:5 - cgroup cgroup rw,pids",
                "41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw",
                "42 31 0:39 / /elsewhere rw - cgroup2 cgroup2 rw",
            ],
            "/cg/unified",
            {"cpu": "/cg/cpu", "pids": "/cg/pids"},
        ),
        (["27 1 254:0 / / rw - ext4 /dev/vda rw"], "", {}),
    ],
)
def test_mount_tables(tmp_path: Path, lines: list[str], unified: str, controllers: dict[str, str]) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("\n".join(lines) + "\n")
    assert cgroups.discover(str(table)) == cgroups.Hierarchies(unified, controllers)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_messages_arrive_whole(value: object) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader, writer = os.pipe()
        wire.send(ours, value, [writer])
        received, fds = wire.receive(theirs)
        assert received == value
        assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(writer).st_ino]
        for fd in (reader, writer, *fds):
            os.close(fd)


def test_broken_messages_are_told_apart() -> None:
    for data, error in [(b"", wire.Closed), (b"\0\0", ConnectionResetError), (b"\xff\xff\xff\xff", ValueError)]:
        ours, theirs = socket.socketpair()
        with theirs:
            with ours:
                ours.sendall(data)
            with pytest.raises(error):
                wire.receive(theirs)


def test_spares_end_when_they_are_closed_just_as_they_begin_to_make_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Slot:
        raise ClawbackError("none is made here")

    spares = Spares(none, 1)

    class ClosedJustBefore(threading.Event):
        def clear(self) -> None:
            spares._closing.set()
            self.set()
            super().clear()

    monkeypatch.setattr(spares, "_due", ClosedJustBefore())
    spares._thread.start()
    spares.replenish()
    spares._thread.join(10)
    assert not spares._thread.is_alive()
