"""Trees that are hard to seal: traced, half dead, without a launch filter, forking and executing all the while."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from clawback.enforcement.kernel import cgroups
from clawback.enforcement.kernel.ptrace import SUPPORTED
from clawback.enforcement.quarantine import borrow, freeze, inject, seal, stop, tree
from clawback.enforcement.quarantine.helper import run_alone
from clawback.enforcement.sandbox.record import Sandbox
from clawback.model import Enforcement

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not SUPPORTED, reason="injection is not written for this machine")]


@dataclass
class Bare:
    """A process of ours in a group of its own, under no filter at all, as a `Sandbox`."""

    box: Sandbox
    board: memoryview

    def without_cgroup(self) -> Sandbox:
        from dataclasses import replace

        return replace(self.box, cgroup="", controllers={})


@pytest.fixture
def bare(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("makes cgroups: needs root")
    hierarchies, group = cgroups.discover(), f"clawback-test-{uuid.uuid4().hex[:8]}"
    made = []

    def start(*command: str) -> Bare:
        leaf = cgroups.make_leaf(hierarchies, group, f"bare-{random.randrange(1 << 30)}")
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        (folder / "board").write_bytes(bytes(256))

        def join() -> None:
            for path in (leaf.unified, *leaf.controllers.values()):
                Path(path, "cgroup.procs").write_text("0")

        process = subprocess.Popen((*command, str(folder / "board")), preexec_fn=join)  # noqa: PLW1509 - one thread
        made.append((leaf, process))
        descriptor = os.open(folder / "board", os.O_RDWR)
        board = memoryview(mmap.mmap(descriptor, 256)).cast("Q")
        os.close(descriptor)
        box = Sandbox(
            agent="bare", instance="1", pid=process.pid,
            start_ticks=tree.start_ticks(process.pid), shim_pid=os.getpid(),
            shim_start_ticks=0, uid=0, cgroup=leaf.unified, folder=str(folder), policy="", policy_version=0,
            command=command, started_ns=0, controllers=leaf.controllers,
        )  # fmt: skip
        return Bare(box, board)

    yield start
    for leaf, process in made:
        process.kill()
        assert cgroups.remove_leaf(leaf)
        process.wait()
    assert cgroups.remove_parent(hierarchies, group)


@pytest.fixture
def build(programs):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def make(text: str, *flags: str) -> str:
        program = programs / f"hard-{uuid.uuid4().hex[:8]}"
        source = program.with_suffix(".c")
        source.write_text(text)
        subprocess.run([compiler, "-O1", "-w", *flags, "-o", program, source, "-lpthread"], check=True)
        return str(program)

    return make


HEAD = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
volatile unsigned long *board;
static void map(char **argv, int argc) {
    board = mmap(0, 256, PROT_READ | PROT_WRITE, MAP_SHARED, open(argv[argc - 1], O_RDWR), 0);
}
static void *attempts(void *at) {
    volatile unsigned long *mine = board + (long)at;
    for (;;) {
        int fd = open("/etc/passwd", O_RDONLY);
        if (fd >= 0) { mine[1]++; close(fd); } else mine[2] = errno;
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd >= 0) { mine[3]++; close(fd); } else mine[4] = errno;
        mine[0]++;
    }
}
"""


def assert_sealed(make, board, at=0):
    def moves():
        before = board[at]
        make.wait_until(lambda: board[at] != before, "it goes on")

    moves()
    before = board[at + 1], board[at + 3]
    moves()
    moves()
    assert (board[at + 1], board[at + 3]) == before
    assert (board[at + 2], board[at + 4]) == (errno.EACCES, errno.EPERM)


FIRST_ENDED = (
    HEAD
    + r"""
int main(int argc, char **argv) {
    pthread_t thread;
    map(argv, argc);
    pthread_create(&thread, 0, attempts, (void *)0);
    syscall(SYS_exit, 0);
}
"""
)


def test_a_process_whose_first_thread_has_ended(make, build):
    made = make("", command=(build(FIRST_ENDED),))
    made.moves(1)
    result = seal.apply(made.box, make.run)
    assert result.enforcement is Enforcement.FULL, result
    assert_sealed(make, made.board)


TRACED = (
    HEAD
    + r"""
int main(int argc, char **argv) {
    map(argv, argc);
    pid_t child = fork();
    if (child == 0) attempts((void *)8);
    if (ptrace(PTRACE_SEIZE, child, 0, EXIT_KILL)) _exit(9);
    if (STOPPED) { ptrace(PTRACE_INTERRUPT, child, 0, 0); waitpid(child, 0, 0); }
    board[7] = 1;
    attempts((void *)0);
}
"""
)


@pytest.mark.parametrize("stopped", [0, 1], ids=["running", "in its stop"])
@pytest.mark.parametrize("group", [True, False], ids=["cgroup", "no cgroup"])
def test_one_that_another_of_the_tree_traces(make, bare, build, stopped, group):
    # A tracer that is the first process: its death would end a sandbox, not this bare tree.
    made = bare(build(TRACED, "-DEXIT_KILL=0", f"-DSTOPPED={stopped}"))
    make.wait_until(lambda: made.board[7] == 1, "it traces")
    box = made.box if group else made.without_cgroup()
    child = max(tree.processes(box))
    result = seal.apply(made.box if group else box, run_alone)
    assert result.enforcement is Enforcement.FULL, result
    assert tree.status(child).filters == 1
    assert_sealed(make, made.board, 8)


def test_one_that_a_process_outside_traces_stays_frozen_and_is_named(make, bare, build):
    made = bare(build(HEAD + "int main(int c, char **v) { map(v, c); attempts(0); }"))
    make.wait_until(lambda: made.board[0] > 0, "it runs")
    outside = subprocess.Popen(
        [sys.executable, "-c", f"""
from clawback.enforcement.kernel.ptrace import Tracee
import signal
one = Tracee({made.box.pid}, {made.box.pid}); print(1, flush=True); signal.pause()
"""],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert outside.stdout is not None
    outside.stdout.readline()
    result = seal.apply(made.box, run_alone)
    assert result.enforcement is Enforcement.NONE, result
    assert any(f"process {outside.pid} outside traces it" in line for line in result.missing), result
    assert freeze.probe(made.box).enforcement is Enforcement.FULL
    outside.kill()
    outside.wait()
    outside.stdout.close()
    assert seal.apply(made.box, run_alone).enforcement is Enforcement.FULL


RING = (
    HEAD
    + r"""
#include <linux/io_uring.h>
int main(int argc, char **argv) {
    struct io_uring_params p;
    map(argv, argc);
    memset(&p, 0, sizeof p);
    p.flags = FLAGS;
    p.sq_thread_idle = 1000000;
    int ring = syscall(SYS_io_uring_setup, 8, &p);
    if (ring < 0) { board[7] = errno; pause(); }
    board[6] = 1;
    for (;;) {
        if (syscall(SYS_io_uring_enter, ring, 0, 0, 0, 0, 0) >= 0) board[1]++; else board[2] = errno;
        board[0]++;
    }
}
"""
)


def started(make, made):
    make.wait_until(lambda: made.board[6] or made.board[7], "the ring is there")
    if made.board[7]:
        pytest.skip(f"this kernel makes no such io_uring: {errno.errorcode.get(made.board[7])}")


def test_an_io_uring_that_is_in_use_is_entered_no_more(make, bare, build):
    made = bare(build(RING, "-DFLAGS=0"))
    started(make, made)
    make.wait_until(lambda: made.board[1] > 0, "it is entered")
    assert seal.apply(made.box, run_alone).enforcement is Enforcement.FULL
    rounds = made.board[0]
    make.wait_until(lambda: made.board[0] > rounds + 2, "it goes on")
    assert made.board[2] == errno.EPERM


def test_an_io_uring_that_the_kernel_polls_is_named_and_left_frozen(make, bare, build):
    made = bare(build(RING, "-DFLAGS=IORING_SETUP_SQPOLL"))
    started(make, made)
    result = seal.apply(made.box, run_alone)
    assert result.enforcement is Enforcement.PARTIAL, result
    assert any("io_uring" in line for line in result.missing), result
    assert "left frozen" in result.observed
    assert seal.probe(made.box).enforcement is Enforcement.PARTIAL
    assert stop.apply(made.box).enforcement is Enforcement.FULL


def test_without_the_instruction_anywhere_it_is_written_for_a_moment(make, bare, build, monkeypatch):
    made = bare(build(HEAD + "int main(int c, char **v) { map(v, c); attempts(0); }", "-static"))
    make.wait_until(lambda: made.board[0] > 0, "it runs")
    code = Path(f"/proc/{made.box.pid}/mem")
    region = next(one for one in borrow._regions(made.box.pid) if one.flags[2:] == "xp")

    def first_bytes():
        with code.open("rb", buffering=0) as memory:
            return borrow._peek(memory, region.start, 64)

    before = first_bytes()
    written = []
    original = borrow._written
    monkeypatch.setattr(borrow, "_found", lambda *_: 0)
    monkeypatch.setattr(borrow, "_written", lambda *given: written.append(1) or original(*given))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        result = seal.apply(made.box, lambda _name, given: inject.run(**given))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert result.enforcement is Enforcement.FULL, result
    assert written
    assert first_bytes() == before
    assert_sealed(make, made.board)


FIFTY = """
def forever(n):
    while True:
        board[1] += code(open, "/etc/passwd") == 0
        time.sleep(0.001)
for n in range(50): threading.Thread(target=forever, args=(n,)).start()
while True: board[0] += 1
"""


def test_fifty_threads(make):
    made = make(FIFTY)
    make.wait_until(lambda: len(tree.threads(made.box)) == 52 and made.board[1] > 50, "all run")
    result = seal.apply(made.box, make.run)
    assert result.enforcement is Enforcement.FULL, result
    assert (result.counts["threads"], result.counts["sealed"], result.counts["walled"]) == (52, 52, 52)
    made.moves()
    before = made.board[1]
    made.moves()
    made.moves()
    assert made.board[1] == before


BOMB = (
    HEAD
    + r"""
int main(int argc, char **argv) {
    char *program = (char *)getauxval(AT_EXECFN), *again[] = {"x", argv[argc - 1], 0};
    map(argv, argc);
    for (int round = 0; argv[0][0] != 'x' || round < 3; round++) {
        for (int n = 0; n < 2; n++) {
            pid_t pid = fork();
            if (pid == 0) { board[0]++; execv(program, again); board[2] = errno; _exit(1); }
            if (pid < 0) board[1] = errno;
        }
        board[3]++;
        while (waitpid(-1, 0, WNOHANG) > 0);
    }
}
"""
)


@pytest.mark.parametrize("group", [True, False], ids=["cgroup", "no cgroup"])
def test_a_bomb_of_forks_and_execs(make, build, group):
    made = make("", command=(build(BOMB),))
    make.wait_until(lambda: made.board[0] > 200, "it spreads")
    box = made.box if group else made.without_cgroup()
    for _ in range(5):
        result = seal.apply(box, make.run)
        if result.enforcement is Enforcement.FULL:
            break
        assert not group, result
        assert result.missing, "what is not sealed is said"
    assert result.enforcement is Enforcement.FULL, result
    make.wait_until(lambda: made.board[1] == errno.EPERM, "a fork fails")
    make.wait_until(lambda: len(tree.processes(made.box)) == 2, "what had been forked before has ended", 30.0)
    executed = made.board[0]
    made.moves(3)
    made.moves(3)
    assert made.board[0] == executed
    assert seal.probe(box).enforcement is Enforcement.FULL


FULL_OF_FILTERS = """
one = struct.pack("=HBBI", 6, 0, 0, 0x7fff0000)
program = struct.pack("=HBBI", 0x20, 0, 0, 0) * 4000 + one
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
while len(program) >= 8:
    kept = ctypes.create_string_buffer(program, len(program))
    block = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(kept)))
    if libc.syscall(317, 1, 0, block):
        program = program[8 * 200:] if len(program) > 1600 else b""
board[0] = 1
while True: board[1] += 1
"""


def test_one_that_has_all_the_filters_there_can_be_stays_frozen(make):
    made = make(FULL_OF_FILTERS)
    make.wait_until(lambda: made.board[0] == 1, "it has them", 30.0)
    result = seal.apply(made.box, make.run)
    assert result.enforcement is Enforcement.PARTIAL, result
    assert any("Cannot allocate memory" in line for line in result.missing), result
    assert "left frozen" in result.observed
    assert freeze.probe(made.box).enforcement is Enforcement.FULL


DEAD_AND_STOPPED = """
if os.fork() == 0: os._exit(0)  # never reaped
child = os.fork()
if child == 0:
    os.kill(os.getpid(), 19)
    board[1] = code(open, "/etc/passwd")
    board[2] = 1
    while True: time.sleep(1)
board[0] = child
while not board[3]: time.sleep(0.001)
os.kill(child, 18)
while True: time.sleep(1)
"""


def test_zombies_and_stopped_ones(make):
    made = make(DEAD_AND_STOPPED)

    def stopped():
        return [pid for pid in tree.processes(made.box) if tree.status(pid).state == "T"]

    make.wait_until(lambda: made.board[0] and stopped(), "it is stopped")
    result = seal.apply(made.box, make.run)
    assert result.enforcement is Enforcement.FULL, result
    make.wait_until(lambda: bool(stopped()), "it is stopped again")
    made.board[3] = 1
    os.kill(stopped()[0], signal.SIGCONT)  # the agent may signal nobody any more
    make.wait_until(lambda: made.board[2] == 1, "it goes on")
    assert made.board[1] == errno.EACCES


ACCEPTING = """
door = socket.socket(socket.AF_UNIX)
door.bind("\\0door"); door.listen()
board[0] = 1
board[1] = code(door.accept)
board[2] = 1
while True: time.sleep(1)
"""


def test_one_that_waits_for_a_connection_gets_none(make):
    made = make(ACCEPTING)
    make.wait_until(lambda: made.board[0] == 1, "it waits")
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    make.wait_until(lambda: made.board[2] == 1, "it came back")
    assert made.board[1] == errno.EPERM


def test_a_thread_that_escaped_the_filter_is_seen(make):
    made = make("while True: board[0] += 1")
    made.moves()
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    # As one that had slipped through would stand there: a process in the group with no filter of ours.
    with subprocess.Popen(["/bin/sleep", "1000"]) as other:
        Path(made.box.cgroup, "cgroup.procs").write_text(str(other.pid))
        try:
            seen = seal.probe(made.box)
            assert seen.enforcement is Enforcement.PARTIAL
            assert f"thread {other.pid} has no sealed filter" in seen.missing
            assert seen.counts["sealed"] == seen.counts["threads"] - 1
            assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
            assert tree.status(other.pid).filters == 1
        finally:
            other.kill()
