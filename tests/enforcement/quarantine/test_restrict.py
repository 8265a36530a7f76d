"""Restricted, an agent runs on and opens no file, starts nothing, reads no secret; released, all is as it was."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from clawback.enforcement.kernel import capabilities
from clawback.enforcement.kernel.libc import CLONE_NEWNS, setns, umount2
from clawback.enforcement.quarantine import cover, freeze, holder, limits, openings, restrict, tree
from clawback.enforcement.quarantine.helper import run_alone
from clawback.model import Enforcement

pytestmark = pytest.mark.kernel

SECRETS = {"token": "hvs.planted-secret-number-one", "key": "planted-secret-number-two"}
GATED = pytest.mark.skipif(
    not capabilities.effective(capabilities.SYS_ADMIN), reason="refusing opens needs CAP_SYS_ADMIN"
)

# 0 rounds, 1 bytes of the last secret read, 2 forks, 3 the last failed fork's errno, then errnos: 4 a file, 5 a folder,
# 6 a file to write, 7 exec, 8 a secret by a folder that was open, 9 the same file by /proc, 10 a secret
READ = """
folder = os.open("/run/secrets", os.O_RDONLY)
passwd = open("/etc/passwd")
os.chdir("/run/secrets")
def secret():
    with open("/run/secrets/token") as file: board[1] = len(file.read())
while True:
    board[10] = code(secret)
    board[4] = code(open, "/etc/passwd")
    board[5] = code(os.listdir, "/usr/bin")
    board[6] = code(open, os.path.dirname(sys.argv[1]) + "/made", "w")
    board[7] = code(os.execv, "/usr/bin/python3", ["python3", "-c", "1"]) if board[31] else 0
    board[8] = code(open, "key")
    board[9] = code(open, f"/proc/self/fd/{passwd.fileno()}")
    try:
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
        board[2] += 1
    except OSError as error:
        board[3] = error.errno
    board[0] += 1
"""


def rounds(made, number=2):
    for _ in range(number):
        made.moves()


def only_what_was_open(result):
    """The agent keeps its board open: that, and nothing else, may be what is missing."""
    return all("board'" in line or "open as" in line for line in result.missing)


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_nothing_opens_and_nothing_forks_until_release(make, frozen):
    made = make(READ, secrets=SECRETS)
    made.moves(2)
    assert made.board[1] == len(SECRETS["token"])
    before = {path: Path(path).read_text() for path in limits._wanted(made.box)[0]}
    if frozen:
        freeze.apply(made.box)
    result = restrict.apply(made.box, make.run)
    assert result.enforcement is Enforcement.PARTIAL, result
    assert only_what_was_open(result), result
    assert "2 of 2 secrets read empty" in result.observed
    assert (result.counts["secrets"], result.counts["unreadable"], result.counts["covered"]) == (2, 2, 2)
    freeze.release(made.box)
    made.board[31] = 1
    rounds(made)
    refused = 0 if openings.NOT_HERE & set(result.missing) else errno.EPERM
    assert [made.board[n] for n in range(4, 11)] == [refused] * 7
    assert result.counts["marks"] > 5
    if before:
        forks = made.board[2]
        rounds(made)
        assert made.board[2] == forks
        assert made.board[3] == errno.EAGAIN
    seen = restrict.probe(made.box, make.run)
    assert seen.enforcement is Enforcement.PARTIAL
    assert seen.counts["drift"] == 0, seen

    made.board[31] = 0
    rounds(made)  # or it may be about to execute something, and succeed
    released = restrict.release(made.box, make.run)
    assert released.enforcement is Enforcement.NONE, released
    assert {path: Path(path).read_text() for path in before} == before
    assert not Path(made.box.folder, limits.KEPT).exists()
    assert not Path(made.box.folder, holder.RECORD).exists()
    made.moves(2)
    rounds(made)
    assert made.board[1] == len(SECRETS["token"])
    assert [made.board[n] for n in range(4, 11)] == [0] * 7
    assert restrict.probe(made.box, make.run).enforcement is Enforcement.NONE


def test_twice_is_once_and_release_needs_only_the_disk(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    before = {path: Path(path).read_text() for path in limits._wanted(made.box)[0]}
    restrict.apply(made.box, make.run)
    mounted = len(Path(f"/proc/{made.box.pid}/mountinfo").read_text().splitlines())
    record = Path(made.box.folder, holder.RECORD)
    held = record.read_text()
    restrict.apply(made.box, make.run)
    assert len(Path(f"/proc/{made.box.pid}/mountinfo").read_text().splitlines()) == mounted
    assert record.read_text() == held
    assert restrict.release(made.box, run_alone).enforcement is Enforcement.NONE
    assert {path: Path(path).read_text() for path in before} == before
    assert cover.covered(made.box) == set()
    assert restrict.release(made.box, run_alone).enforcement is Enforcement.NONE


def pair(made):
    """The holder's processes, by its record."""
    return sorted(int(pid) for pid in json.loads(Path(made.box.folder, holder.RECORD).read_text())["pids"])


@GATED
@pytest.mark.parametrize("which", [0, 1], ids=["the guard", "the one that answers"])
def test_one_of_the_two_that_refuse_is_killed_and_replaced(make, which):
    made = make(READ, secrets=SECRETS)
    made.moves()
    restrict.apply(made.box, make.run)
    rounds(made)
    before = pair(made)
    os.kill(before[which], signal.SIGKILL)
    for _ in range(20):
        made.moves()
        assert made.board[4] == errno.EPERM
    make.wait_until(lambda: pair(made) != before and len(pair(made)) == 2, "another takes its place")
    assert before[1 - which] in pair(made)
    assert only_what_was_open(restrict.probe(made.box, make.run))
    assert restrict.release(made.box, make.run).enforcement is Enforcement.NONE
    rounds(made)
    assert made.board[4] == 0


@GATED
def test_who_waits_for_an_answer_when_the_one_that_answers_is_killed_gets_one(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    restrict.apply(made.box, make.run)
    for _ in range(40):
        before = pair(made)
        os.kill(before[1], signal.SIGKILL)  # as likely as not amid an answer: the agent does nothing but ask
        rounds(made)
        assert made.board[4] == errno.EPERM
        make.wait_until(lambda before=before: pair(made) != before, "another takes its place")
    assert restrict.release(made.box, make.run).enforcement is Enforcement.NONE


@GATED
def test_both_killed_at_once_is_seen_and_mended(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    restrict.apply(made.box, make.run)
    rounds(made)
    assert made.board[4] == errno.EPERM
    record = openings.record(made.box)
    os.killpg(os.getpgid(pair(made)[0]), signal.SIGKILL)
    make.wait_until(lambda: made.board[4] == 0, "files open again")
    make.wait_until(lambda: not openings.alive(record), "both are gone")  # they let go of the files before they are
    seen = restrict.probe(made.box, make.run)
    assert seen.enforcement is Enforcement.PARTIAL
    assert any("the holder is gone" in line for line in seen.missing), seen.missing
    assert seen.counts["marks"] == 0
    assert seen.counts["drift"] > 0
    assert only_what_was_open(restrict.apply(made.box, make.run))
    rounds(made)
    assert made.board[4] == errno.EPERM


@GATED
def test_an_answering_process_that_is_stopped_is_replaced(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    restrict.apply(made.box, make.run)
    guard, answering = pair(made)
    os.kill(answering, signal.SIGSTOP)
    make.wait_until(lambda: pair(made)[1] != answering, "another takes its place")
    rounds(made)
    assert made.board[4] == errno.EPERM
    os.kill(guard, signal.SIGSTOP)  # it answers nobody, and is no hindrance
    make.wait_until(lambda: tree.status(guard).state in "Tt", "it is stopped")
    seen = restrict.probe(made.box, make.run)
    assert any(f"process {guard} is stopped" in line for line in seen.missing), seen.missing
    assert only_what_was_open(restrict.apply(made.box, make.run))
    assert guard not in pair(made)
    rounds(made)
    assert made.board[4] == errno.EPERM


@GATED
def test_what_is_on_the_allow_list_still_opens_and_only_that(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    result = restrict.apply(made.box, make.run, readable=("/etc/passwd", str(Path(made.box.folder).parent)))
    rounds(made)
    assert made.board[4] == 0
    assert made.board[9] == 0
    assert [made.board[n] for n in (5, 6, 8, 10)] == [errno.EPERM] * 4, "a writable folder is never on it"
    assert result.counts["marks"] > 5
    restrict.apply(made.box, make.run)  # as a keeper does: the order is kept
    rounds(made)
    assert made.board[4] == 0
    restrict.apply(made.box, make.run, readable=())
    rounds(made)
    assert made.board[4] == errno.EPERM


@GATED
def test_the_holder_ends_with_the_sandbox(make):
    made = make("time.sleep(1)", secrets=SECRETS)
    restrict.apply(made.box, make.run)
    pids = pair(made)
    make.wait_until(lambda: tree.gone(made.box), "it ends")
    make.wait_until(lambda: not any(alive(pid) for pid in pids), "they end")


def alive(pid):
    try:
        return tree.status(pid).state not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@GATED
def test_others_open_files_by_the_agents_mounts_as_before(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    restrict.apply(made.box, make.run)
    assert "agent:x:1000" in Path(f"/proc/{made.box.pid}/root/etc/passwd").read_text()


def test_sabotage_is_seen_and_named(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    restrict.apply(made.box, make.run)
    child = os.fork()
    if child == 0:
        setns(os.open(f"/proc/{made.box.pid}/ns/mnt", os.O_RDONLY), CLONE_NEWNS)
        umount2("/run/secrets/key", 8 | 2)
        os._exit(0)
    os.waitpid(child, 0)
    for path in limits._wanted(made.box)[0]:
        Path(path).write_text("max" if path.endswith("pids.max") else "50000")
    seen = restrict.probe(made.box, make.run)
    assert "/run/secrets/key is not covered" in seen.missing
    for path in limits._wanted(made.box)[0]:
        assert any(line.startswith(Path(path).name) for line in seen.missing), seen.missing
    assert only_what_was_open(restrict.apply(made.box, make.run))


HOLD = """
import mmap
kept = open("/run/secrets/token")
mapped = mmap.mmap(os.open("/run/secrets/key", os.O_RDONLY), 0, prot=mmap.PROT_READ)
log = open(os.path.dirname(sys.argv[1]) + "/log", "w")
private = open("/tmp/private", "w")
board[0] = 1
while True: time.sleep(100)
"""


def test_what_was_opened_before_is_named(make):
    made = make(HOLD, secrets=SECRETS)
    make.wait_until(lambda: made.board[0] == 1, "they are open")
    result = restrict.apply(made.box, make.run)
    assert result.enforcement is Enforcement.PARTIAL
    assert any("'/run/secrets/token' open as" in line for line in result.missing), result.missing
    assert any("'/run/secrets/key' mapped" in line for line in result.missing)
    assert any(line.endswith("writable") and "/log' open as" in line for line in result.missing)
    assert not any("private" in line for line in result.missing), "what is written there leaves the sandbox nowhere"
    assert result.counts["open"] == len([line for line in result.missing if "open as" in line or "mapped" in line])
    assert "planted" not in str(result)


def test_without_controllers_it_says_what_is_missing(make):
    from dataclasses import replace

    made = make(READ, secrets=SECRETS)
    made.moves()
    result = restrict.apply(made.without_cgroup(), make.run)
    assert result.enforcement is Enforcement.PARTIAL
    assert any("no pids controller" in line for line in result.missing)
    assert any("no cpu controller" in line for line in result.missing)
    unified_only = replace(made.box, controllers={})
    if not Path(made.box.cgroup, "pids.max").exists():
        assert any("no pids controller" in line for line in restrict.probe(unified_only, make.run).missing)
    restrict.release(made.without_cgroup(), make.run)


@pytest.mark.parametrize(("most", "high"), [("1073741824", 1 << 28), ("max", 64 << 20), ("1048576", 64 << 20)])
def test_limits_of_cgroup_v2_alone(tmp_path, monkeypatch, most, high):
    from clawback.enforcement.sandbox.record import Sandbox

    group, folder = tmp_path / "group", tmp_path / "folder"
    group.mkdir()
    folder.mkdir()
    before = {"pids.max": "64", "cpu.max": "max 100000", "memory.high": "max", "memory.max": most}
    for name, value in before.items():
        (group / name).write_text(value)
    monkeypatch.setattr(limits, "_there", os.path.exists)
    # A cgroup's file takes a value whole; an ordinary one would keep what was longer.
    monkeypatch.setattr(tree, "write", lambda path, value: Path(path).write_text(value))
    box = Sandbox(
        agent="a", instance="1", pid=1, start_ticks=1, shim_pid=1, shim_start_ticks=1, uid=1, cgroup=str(group),
        folder=str(folder), policy="", policy_version=1, command=(), started_ns=0,
    )  # fmt: skip
    assert limits.lower(box) == []
    assert limits.lower(box) == []
    assert {name: (group / name).read_text() for name in before} == {
        "pids.max": "0", "cpu.max": "10000 100000", "memory.high": str(high), "memory.max": most
    }  # fmt: skip
    assert limits.lowered(box) == (["pids.max 0", "cpu.max 10000 100000", f"memory.high {high}"], [])
    (group / "memory.high").write_text("max")
    assert limits.lowered(box)[1] == ["memory.high max"]
    assert limits.put_back(box) == []
    assert {name: (group / name).read_text() for name in before} == before


def test_a_forged_record_of_old_limits_is_not_followed(make, tmp_path):
    made = make(READ, secrets=SECRETS)
    made.moves()
    other = tmp_path / "other"
    other.write_text("mine")
    escape = f"{made.box.cgroup}/../../../../..{other}"
    Path(made.box.folder, limits.KEPT).write_text(f'{{"{other}": "1", "{escape}": "1"}}')
    assert limits.put_back(made.box) == []
    assert other.read_text() == "mine"


def test_an_ended_sandbox_has_nothing_to_restrict(make):
    made = make("pass", secrets=SECRETS)
    make.wait_until(lambda: tree.gone(made.box), "it ends")
    assert restrict.apply(made.box, make.run).enforcement is Enforcement.FULL
    assert restrict.release(made.box, make.run).enforcement is Enforcement.NONE
