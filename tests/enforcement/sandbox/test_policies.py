"""What a policy's forms say holds in the kernel: seen from inside."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.kernel.syscalls import MACHINE, NUMBER
from clawback.enforcement.policy.calls import ArgumentTest, CallAction, CallRule, SyscallPolicy
from clawback.enforcement.policy.floor import NEEDED
from clawback.enforcement.policy.loader import load
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.errors import InvalidInput, NotEnforced

pytestmark = pytest.mark.kernel

CALL = """
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments)) < 0:
        return errno.errorcode[ctypes.get_errno()]
    return "ok"
"""
PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
    "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["mincore"], "action": "SCMP_ACT_ERRNO",
         "args": [{"index": 1, "value": 0x1_0000_0005, "op": "SCMP_CMP_EQ"}]},
        {"names": ["sched_yield"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["ptrace", "mount"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["getpgid"], "action": "SCMP_ACT_LOG"},
    ],
}  # fmt: skip


def profile_policy(**changes: Any) -> SandboxPolicy:
    return load(json.dumps(PROFILE | changes), where="p").sandbox


def test_a_runtimes_profile_narrows_and_opens_nothing(sandboxes: Any) -> None:
    script = (
        CALL
        + f"""
seen["getppid"] = call({NUMBER["getppid"]})
seen["other half"] = call({NUMBER["mincore"]}, 1, 5)
seen["both halves"] = call({NUMBER["mincore"]}, 1, 0x100000005)
seen["ptrace"] = call({NUMBER["ptrace"]}, 0)
seen["mount"] = call({NUMBER["mount"]}, 0, 0, 0, 0, 0)
seen["logged"] = call({NUMBER["getpgid"]}, 0)
"""
    )
    assert sandboxes.ask(script, policy=profile_policy()) == {
        "getppid": "ENOSYS", "other half": "EINVAL", "both halves": "EPERM", "ptrace": "EPERM", "mount": "EPERM",
        "logged": "ok",
    }  # fmt: skip


def test_a_profile_that_kills_kills(sandboxes: Any) -> None:
    launched = sandboxes.launch("python3", "-c", "import os; os.sched_yield()", policy=profile_policy())
    assert launched.wait(20) == 128 + 31  # SIGSYS


def test_what_is_called_needed_is_enough_to_be_started(sandboxes: Any, tmp_path: Path) -> None:
    calls = SyscallPolicy(rules=(CallRule(names=tuple(NEEDED), action=CallAction.ALLOW),), otherwise=CallAction.DENY)
    policy = SandboxPolicy(name="test", syscalls=calls)
    # The linker is refused its files: the program starts and fails, which is the program's matter.
    assert sandboxes.launch("/bin/true", policy=policy).wait(20) == 127


@pytest.mark.parametrize("name", ["seccomp", "execve", "clone", "setsid", "mmap"])
def test_without_what_is_called_needed_nothing_starts(sandboxes: Any, name: str) -> None:
    rule = CallRule(names=(name,), action=CallAction.DENY)
    with pytest.raises((NotEnforced, InvalidInput)):
        sandboxes.launch("/bin/true", policy=SandboxPolicy(name="test", syscalls=SyscallPolicy(rules=(rule,))))


def test_lists_narrow_the_minimal_profile_and_add_to_it(sandboxes: Any) -> None:
    calls = SyscallPolicy(
        base="minimal",
        also=("io_setup",),
        rules=(CallRule(names=("mkdir", "mkdirat"), action=CallAction.DENY, errno=1),),
    )
    script = (
        CALL
        + f"""
seen["mkdir"] = tried(os.mkdir, "/tmp/x")
seen["added"] = call({NUMBER["io_setup"]}, 0, 0)
seen["still closed"] = call({NUMBER["kcmp"]}, 0)
"""
    )
    seen = sandboxes.ask(script, policy=SandboxPolicy(name="test", filesystem="read-write", syscalls=calls))
    assert seen == {"mkdir": "EPERM", "added": "EFAULT", "still closed": "EPERM"}


def test_an_attempt_is_under_the_same_rules(sandboxes: Any) -> None:
    from clawback.enforcement.sandbox.attempt import attempt
    from clawback.model import Attempt

    record = sandboxes.launch("sleep", "300", policy=profile_policy()).record
    seen = attempt(
        sandboxes.spawner,
        record,
        [Attempt(kind="syscall", target=name) for name in ("getppid", "getuid", "sched_yield")],
    )
    assert [(one.denied, one.detail.split()[0]) for one in seen] == [
        (True, "ENOSYS"), (False, "returned"), (True, "killed"),
    ]  # fmt: skip


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 is of x86-64")
def test_foreign_entries_are_closed_under_a_profile_that_lists_them(sandboxes: Any) -> None:
    script = CALL + 'seen["x32"] = call(0x40000000 + 39)'
    assert sandboxes.ask(script, policy=profile_policy()) == {"x32": "EPERM"}


def test_every_operator_compares_all_64_bits(sandboxes: Any) -> None:
    edge = 0x1_0000_0005
    holds = {"eq": [edge], "ne": [5, edge + 1], "lt": [edge - 1, 5], "le": [edge, 5], "ge": [edge, 2**63],
             "gt": [edge + 1, 2**63]}  # fmt: skip
    fails = {"eq": [5, edge + 1], "ne": [edge], "lt": [edge, 2**63], "le": [edge + 1, 2**63], "ge": [edge - 1, 5],
             "gt": [edge, 5]}  # fmt: skip
    for operator, held in holds.items():
        rule = CallRule(
            names=("mincore",), action=CallAction.DENY, errno=errno.EXDEV,
            tests=(ArgumentTest(argument=1, operator=operator, value=edge),),
        )  # fmt: skip
        script = (
            CALL
            + f"""
seen["holds"] = [call({NUMBER["mincore"]}, 1, value) for value in {held}]
seen["fails"] = [call({NUMBER["mincore"]}, 1, value) for value in {fails[operator]}]
"""
        )
        seen = sandboxes.ask(script, policy=SandboxPolicy(name="test", syscalls=SyscallPolicy(rules=(rule,))))
        assert set(seen["holds"]) == {"EXDEV"}, operator
        assert set(seen["fails"]) == {"EINVAL"}, operator


OPENSHELL = """\
version: 1
filesystem_policy:
  include_workdir: {workdir}
  read_only: [/usr, /lib, /proc, /dev/urandom, /app-that-is-not-here, /etc, /var/log, {read}]
  read_write: [/tmp, /dev/null, {write}]
landlock: {{compatibility: hard_requirement}}
process: {{run_as_user: sandbox, run_as_group: "1000"}}
"""


@pytest.mark.parametrize("workdir", [True, False])
def test_an_openshell_documents_files(sandboxes: Any, tmp_path: Path, workdir: bool) -> None:
    folders = {name: tmp_path / name for name in ("read", "write", "work")}
    for folder in folders.values():
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
    text = OPENSHELL.format(workdir=str(workdir).lower(), read=folders["read"], write=folders["write"])
    script = f"""
for name, path in { ({name: str(path) for name, path in folders.items()} | {"tmp": "/tmp"}) }.items():
    seen[name] = tried(lambda: open(path + "/made", "w").close())
seen["log"] = os.path.exists("/var/log")
seen["shadow"] = os.path.exists("/etc/shadow")
seen["dev"] = sorted(os.listdir("/dev"))
seen["uid"] = os.getuid()
"""
    seen = sandboxes.ask(script, policy=load(text, where="p").sandbox, workdir=str(folders["work"]))
    assert (seen["write"], seen["tmp"], seen["work"]) == ("ok", "ok", "ok" if workdir else seen["read"])
    assert seen["read"] in {"EROFS", "EACCES"}
    assert (seen["log"], seen["shadow"], seen["uid"]) == (False, False, 1000)
    # No GPU's node, nor any device's but these.
    assert set(seen["dev"]) <= {
        "fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero", "ptmx", "pts", "tty",
    }  # fmt: skip


def test_a_layer_that_is_required_and_not_there_starts_nothing(sandboxes: Any) -> None:
    with pytest.raises(NotEnforced, match="requires flux"):
        sandboxes.launch("/bin/true", policy=SandboxPolicy(name="test", required=("landlock", "flux")))


# What a Python program that sleeps calls beyond `NEEDED`.
PYTHON_NEEDS = (
    "access", "openat", "fstat", "newfstatat", "pread64", "mprotect", "arch_prctl", "set_tid_address",
    "set_robust_list", "rseq", "prlimit64", "getrandom", "lseek", "ioctl", "getpid", "getuid", "geteuid",
    "getgid", "getegid", "readlink", "getdents64", "getcwd", "sysinfo", "poll", "select", "clock_nanosleep",
    "gettid", "sigaltstack", "uname",
)  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0 or MACHINE != "x86_64", reason="sealing is by ptrace as root, on x86-64")
def test_under_the_narrowest_policy_an_agent_can_be_sealed(sandboxes: Any, until: Any) -> None:
    from clawback.enforcement.quarantine import seal, stop
    from clawback.model import Enforcement

    allowed = CallRule(names=(*NEEDED, *PYTHON_NEEDS), action=CallAction.ALLOW)
    calls = SyscallPolicy(rules=(allowed,), otherwise=CallAction.DENY)
    script = "import sys, time; print('up', flush=True)\nwhile True: time.sleep(0.01)"
    box = sandboxes.launch("python3", "-S", "-c", script, policy=SandboxPolicy(name="test", syscalls=calls)).record
    until(lambda: "up" in Path(box.folder, "output.log").read_text())
    before = seal.probe(box)
    assert before.enforcement is Enforcement.NONE
    result = seal.apply(box, sandboxes.spawner.run)
    assert result.enforcement is Enforcement.FULL, result
    stop.apply(box)
