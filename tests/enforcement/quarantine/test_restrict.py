"""Restricted, an agent runs on with empty secrets and no new processes; released, all is as it was."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from clawback.enforcement.quarantine import cover, freeze, limits, restrict, tree
from clawback.enforcement.quarantine.helper import run_alone
from clawback.model import Enforcement

pytestmark = pytest.mark.kernel

SECRETS = {"token": "hvs.planted-secret-number-one", "key": "planted-secret-number-two"}

# 0 rounds, 1 bytes of the last reading, 2 forks, 3 the last failed fork's errno, 4 writes, 5 by a descriptor
READ = """
os.chdir("/run/secrets")
folder = os.open(".", os.O_RDONLY)
while True:
    try:
        board[1] = len(open("/run/secrets/token").read())
        board[5] = len(open("key").read())
        board[5] += len(os.read(fd := os.open("token", os.O_RDONLY, dir_fd=folder), 100))
        os.close(fd)
    except OSError:
        continue  # it was opened just as the cover changed
    if board[1] == 0:
        board[4] += code(open, "/run/secrets/token", "r+") == 0
    try:
        pid = os.fork()
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
        board[2] += 1
    except OSError as error:
        board[3] = error.errno
    board[0] += 1
"""


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_secrets_read_empty_and_nothing_forks_until_release(make, frozen):
    made = make(READ, secrets=SECRETS)
    made.moves(2)
    assert made.board[1] == len(SECRETS["token"])
    before = {path: Path(path).read_text() for path in limits._wanted(made.box)[0]}
    if frozen:
        freeze.apply(made.box)
    result = restrict.apply(made.box, make.run)
    # A running agent may have had one open at that very moment: then that is what is missing, and nothing else.
    if before:
        assert all("open as" in line for line in result.missing), result
        assert frozen or result.enforcement in {Enforcement.FULL, Enforcement.PARTIAL}
    assert "2 of 2 secrets read empty" in result.observed
    freeze.release(made.box)
    made.moves()
    made.moves()
    assert made.board[1] == 0
    assert made.board[5] == 0
    assert made.board[4] == 0
    if before:
        forks = made.board[2]
        made.moves()
        assert made.board[2] == forks
        assert made.board[3] == errno.EAGAIN
    assert restrict.probe(made.box).enforcement is not Enforcement.NONE

    released = restrict.release(made.box, make.run)
    assert released.enforcement is Enforcement.NONE, released
    assert {path: Path(path).read_text() for path in before} == before
    assert not Path(made.box.folder, limits.KEPT).exists()
    made.moves(2)
    made.moves()
    assert made.board[1] == len(SECRETS["token"])
    assert restrict.probe(made.box).enforcement is Enforcement.NONE


def test_twice_is_once_and_release_needs_only_the_disk(make):
    made = make(READ, secrets=SECRETS)
    made.moves()
    before = {path: Path(path).read_text() for path in limits._wanted(made.box)[0]}
    restrict.apply(made.box, make.run)
    mounts = len(Path(f"/proc/{made.box.pid}/mountinfo").read_text().splitlines())
    restrict.apply(made.box, make.run)
    assert len(Path(f"/proc/{made.box.pid}/mountinfo").read_text().splitlines()) == mounts
    assert restrict.release(made.box, run_alone).enforcement is Enforcement.NONE
    assert {path: Path(path).read_text() for path in before} == before
    assert cover.covered(made.box) == set()
    assert restrict.release(made.box, run_alone).enforcement is Enforcement.NONE


HOLD = """
import mmap
kept = open("/run/secrets/token")
mapped = mmap.mmap(os.open("/run/secrets/key", os.O_RDONLY), 0, prot=mmap.PROT_READ)
board[0] = 1
while True: time.sleep(100)
"""


def test_secrets_opened_before_are_named(make):
    made = make(HOLD, secrets=SECRETS)
    make.wait_until(lambda: made.board[0] == 1, "they are open")
    result = restrict.apply(made.box, make.run)
    assert result.enforcement is Enforcement.PARTIAL
    assert any("/run/secrets/token" in line and "open as" in line for line in result.missing), result.missing
    assert any("mapped" in line for line in result.missing)
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
        assert any("no pids controller" in line for line in restrict.probe(unified_only).missing)
    restrict.release(made.without_cgroup(), make.run)


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
