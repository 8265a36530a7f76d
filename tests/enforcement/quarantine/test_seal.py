"""Sealed, a live tree that does not cooperate cannot connect, write, fork or execute; what it was doing goes on."""

from __future__ import annotations

import contextlib
import errno
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from clawback.enforcement.kernel.ptrace import SUPPORTED
from clawback.enforcement.kernel.seccomp import ALLOW, assemble, deny
from clawback.enforcement.quarantine import freeze, seal, stop, tree
from clawback.model import Enforcement

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(not SUPPORTED, reason="injection is written for x86-64")]

# From its place on: rounds, then how often each attempt succeeded and the errno of its last failure.
TRY = """
def spawn():
    pid = os.fork()
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
def run_program():
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
def attempt_all(at=0):
    connect, write = lambda: socket.create_connection(("127.0.0.1", 3128)), lambda: open("/tmp/made", "w")
    for n, call in enumerate((connect, write, spawn, socket.socket, run_program)):
        number = code(call)
        if number: board[at + 6 + n] = number
        else: board[at + 1 + n] += 1
    board[at] += 1
"""
FILTER = """
def add_filter(program):
    kept = ctypes.create_string_buffer(program, len(program))
    block = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(kept)))
    assert ctypes.CDLL(None).syscall(317, 1, 0, block) == 0
"""
ONE = TRY + "while True: attempt_all()"
THREADS = (
    TRY
    + """
def forever(at):
    while True: attempt_all(at)
threading.Thread(target=forever, args=(11,)).start()
for _ in range(6): threading.Thread(target=lambda: time.sleep(1000)).start()
forever(0)
"""
)
TREE = (
    TRY
    + """
if os.fork() == 0:
    if os.fork() == 0:
        while True: attempt_all(11)
    while True: time.sleep(1000)
while True: attempt_all()
"""
)


def assert_sealed_from_inside(made, at=0):
    """Two whole rounds begin after the seal; in the second nothing succeeds."""
    made.moves(at)
    before = [made.board[at + n] for n in range(1, 6)]
    made.moves(at)
    made.moves(at)
    assert [made.board[at + n] for n in range(1, 6)] == before
    assert [made.board[at + n] for n in range(6, 11)] == [errno.EPERM] * 5


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
@pytest.mark.parametrize(
    ("agent", "places"), [(ONE, (0,)), (THREADS, (0, 11)), (TREE, (0, 11))], ids=["one", "threads", "tree"]
)
def test_a_sealed_agent_goes_on_and_gets_eperm(make, agent, places, frozen):
    made = make(agent)
    for at in places:
        make.wait_until(lambda at=at: all(made.board[at + n] > 2 for n in range(6)), "everything works before")
    if frozen:
        assert freeze.apply(made.box).enforcement is Enforcement.FULL
    assert seal.probe(made.box).enforcement is Enforcement.NONE
    result = seal.apply(made.box, make.run)
    assert result.enforcement is Enforcement.FULL, result
    assert freeze.probe(made.box).enforcement is (Enforcement.FULL if frozen else Enforcement.NONE)
    if frozen:
        freeze.release(made.box)
    for at in places:
        assert_sealed_from_inside(made, at)
    assert seal.probe(made.box).enforcement is Enforcement.FULL
    released = seal.release(made.box)
    assert released.enforcement is Enforcement.FULL
    assert "relaunch" in released.observed


def test_sealing_twice_is_sealing_once(make):
    def filters() -> set[int]:
        found = set()
        for tid in tree.threads(made.box):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a child of before, ending
                found.add(tree.status(tid).filters)
        return found

    made = make(ONE)
    made.moves()
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    once = filters()
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    assert filters() == once
    made.moves()


def test_files_can_be_read_no_more(make):
    made = make("while True:\n    board[1] = code(open, '/etc/passwd')\n    board[0] += 1")
    made.moves()
    assert made.board[1] == 0
    result = seal.apply(made.box, make.run)
    assert result.enforcement is Enforcement.FULL, result
    assert "Landlock was put on 2" in result.observed
    made.moves()
    made.moves()
    assert made.board[1] == errno.EACCES
    assert seal.probe(made.box).enforcement is Enforcement.FULL


def test_using_up_all_descriptors_does_not_keep_the_filter_out(make):
    made = make("""
kept = []
try:
    while True: kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError: board[0] = 1
while True: board[1] += 1
""")
    make.wait_until(lambda: made.board[0] == 1, "it has all the descriptors it may")
    limits = resource.prlimit(sorted(tree.processes(made.box))[1], resource.RLIMIT_NOFILE)
    result = seal.apply(made.box, make.run)
    if may_raise_limits():
        assert result.enforcement is Enforcement.FULL, result
    else:
        assert any("Too many open files" in line for line in result.missing), result
    assert "2 of 2 threads show the sealed filter" in result.observed
    assert resource.prlimit(sorted(tree.processes(made.box))[1], resource.RLIMIT_NOFILE) == limits


def may_raise_limits() -> bool:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 24 & 1)  # CAP_SYS_RESOURCE


LAYERS = """
libc = ctypes.CDLL(None, use_errno=True)
attribute = ctypes.create_string_buffer(struct.pack("=Q", 1))
while True:
    rules = libc.syscall(444, attribute, 8, 0)
    if libc.syscall(446, rules, 0) != 0: break
    os.close(rules)
board[0] = 1
while True: board[1] += 1
"""


def test_where_landlock_cannot_be_added_it_is_said(make):
    made = make(LAYERS)
    make.wait_until(lambda: made.board[0] == 1, "it has all the layers there can be")
    result = seal.apply(made.box, make.run)
    assert result.enforcement is Enforcement.PARTIAL
    assert any("Landlock on 1 threads" in line for line in result.missing), result.missing
    assert "2 of 2 threads show the sealed filter" in result.observed
    assert seal.probe(made.box).enforcement is Enforcement.PARTIAL


def test_an_order_to_freeze_that_comes_meanwhile_is_kept(make):
    made = make(ONE)
    made.moves()

    def run(function, arguments):
        Path(made.box.folder, freeze.ORDER).touch()  # what a freeze writes between its two writes to the cgroup
        return make.run(function, arguments)

    assert seal.apply(made.box, run).enforcement is Enforcement.FULL
    assert freeze.probe(made.box).enforcement is Enforcement.FULL
    assert freeze.release(made.box).enforcement is Enforcement.NONE
    assert_sealed_from_inside(made)


BLOCKED = """
def timed(n, call):
    start = time.monotonic()
    try:
        result = call()
        board[n] = int((time.monotonic() - start) * 1000)
    except OSError as error:
        board[n + 8] = error.errno
import select
r, w = os.pipe()
lock = threading.Lock(); lock.acquire()
libc = ctypes.CDLL(None, use_errno=True)
calls = [lambda: time.sleep(1.5), lambda: select.select([r], [], [], 1.5), lambda: lock.acquire(timeout=1.5),
         lambda: select.poll().poll(1500), lambda: os.read(r, 1)]
threads = [threading.Thread(target=timed, args=(n + 1, call)) for n, call in enumerate(calls)]
for thread in threads: thread.start()
board[0] = 1
time.sleep(2.5)
os.write(w, b"x")
for thread in threads: thread.join()
board[0] = 2
while True: time.sleep(100)
"""


def test_interrupted_calls_are_taken_up_again(make):
    made = make(BLOCKED)
    make.wait_until(lambda: made.board[0] == 1 and len(tree.threads(made.box)) == 7, "all are blocked")
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    make.wait_until(lambda: made.board[0] == 2, "all came back")
    assert [made.board[n] for n in range(9, 14)] == [0] * 5
    assert all(1450 <= made.board[n] < 2400 for n in range(1, 5)), list(made.board[:8])
    assert made.board[5] >= 1500


FORKS = """
for _ in range(3):
    if os.fork() == 0: break
while True:
    try:
        pid = os.fork()
    except OSError as error:
        board[1] = error.errno
        board[2] += 1
        continue
    if pid == 0:
        board[0] += 1
        os._exit(0)
    os.waitpid(pid, 0)
"""


def test_forks_do_not_outrun_it(make):
    made = make(FORKS)
    make.wait_until(lambda: made.board[0] > 50, "it forks")
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    make.wait_until(lambda: len(tree.processes(made.box)) == 5, "what had been forked before has ended")
    forked = made.board[0]
    made.moves(2)
    assert made.board[0] == forked
    assert made.board[1] == errno.EPERM
    assert seal.probe(made.box).enforcement is Enforcement.FULL


VFORK = r"""
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    volatile unsigned long *board = mmap(0, 256, PROT_READ | PROT_WRITE, MAP_SHARED, open(argv[1], O_RDWR), 0);
    for (;;) {
        pid_t pid = vfork();
        if (pid == 0) {
            board[0]++;
            for (int i = 0; i < PAUSES; i++) usleep(1000);
            execl("/bin/true", "true", (char *)0);
            board[1] = errno;
            _exit(1);
        }
        if (pid < 0) { board[2] = errno; board[3]++; } else waitpid(pid, 0, 0);
    }
}
"""


@pytest.fixture
def vforker(programs):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: vfork cannot be called from Python")

    def build(pauses):
        source, program = programs / f"vfork-{pauses}.c", programs / f"vfork-{pauses}"
        source.write_text(VFORK)
        subprocess.run([compiler, "-O1", "-w", f"-DPAUSES={pauses}", "-o", program, source], check=True)
        return (str(program),)

    return build


def test_a_vfork_parent_is_caught_on_its_way_out(make, vforker):
    made = make("", command=vforker(20))
    made.moves()
    assert seal.apply(made.box, make.run, patience=2.0).enforcement is Enforcement.FULL
    made.moves(3)
    assert made.board[2] == errno.EPERM


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_vfork_that_does_not_end_is_partial_and_stays_frozen(make, vforker, frozen):
    made = make("", command=vforker(1_000_000))
    make.wait_until(lambda: len(tree.processes(made.box)) == 3, "inside vfork")
    if frozen:
        freeze.apply(made.box)
    result = seal.apply(made.box, make.run, patience=0.2)
    assert result.enforcement is Enforcement.PARTIAL, result
    assert "vfork" in result.missing[0]
    assert "left frozen" in result.observed
    assert freeze.probe(made.box).enforcement is Enforcement.FULL
    assert stop.apply(made.box).enforcement is Enforcement.FULL


def test_a_launch_filter_that_denies_injection_does_not_stop_it(make):
    program = assemble({"prctl": deny(), "seccomp": deny(), "ptrace": deny()}, ALLOW)
    made = make(FILTER + f"add_filter(bytes.fromhex('{program.hex()}'))\n" + ONE)
    made.moves()
    agent = sorted(tree.processes(made.box))[1]  # the sandbox's first process, then the agent
    filters = tree.status(agent).filters
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    assert tree.status(agent).filters == filters + 1
    assert_sealed_from_inside(made)


def test_threads_with_filters_of_their_own_are_sealed_one_by_one(make):
    made = make(
        FILTER
        + TRY
        + """
def diverge():
    add_filter(struct.pack("=HBBI", 6, 0, 0, 0x7fff0000))
    board[30] = 1
    while True: attempt_all(11)
threading.Thread(target=diverge).start()
while True: attempt_all()
"""
    )
    make.wait_until(
        lambda: made.board[30] == 1 and made.board[11] > 2 and made.board[0] > 2, "it has a filter of its own"
    )
    assert seal.apply(made.box, make.run).enforcement is Enforcement.FULL
    for at in (0, 11):
        assert_sealed_from_inside(made, at)


def test_without_a_cgroup_it_works_too(make):
    made = make(THREADS)
    box = made.without_cgroup()
    made.moves()
    assert seal.apply(box, make.run).enforcement is Enforcement.FULL
    assert_sealed_from_inside(made)
    assert seal.probe(box).enforcement is Enforcement.FULL


def test_an_agent_stopped_by_a_signal_stays_stopped(make):
    made = make(
        TRY.replace("run_program)", "open_socket)") + "open_socket = socket.socket\n" + "while True: attempt_all()"
    )
    made.moves()
    box = made.without_cgroup()
    freeze.apply(box)
    assert seal.apply(box, make.run).enforcement is Enforcement.FULL
    make.wait_until(lambda: tree.status(box.pid).state == "T", "it is stopped again")
    freeze.release(box)
    assert_sealed_from_inside(made)


def test_an_ended_sandbox_needs_no_seal(make):
    made = make("pass")
    make.wait_until(lambda: tree.gone(made.box), "it ends")
    assert "ended" in seal.apply(made.box, make.run).observed
