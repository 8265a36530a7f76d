"""Seccomp profiles mean what libseccomp makes of them: the same verdict, and where it leaves that open no laxer one.

Both are compiled to BPF and interpreted: libseccomp's by way of its own export.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import tempfile
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clawback.enforcement.kernel import seccomp
from clawback.enforcement.kernel.syscalls import TABLES
from clawback.enforcement.policy.calls import CallAction, SyscallPolicy
from clawback.enforcement.policy.nodes import documents
from clawback.enforcement.policy.seccomp_profile import seccomp_profile
from clawback.errors import InvalidInput

X86 = TABLES["x86_64"]
ACTIONS = {
    "SCMP_ACT_KILL": seccomp.KILL_THREAD, "SCMP_ACT_KILL_THREAD": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS, "SCMP_ACT_TRAP": seccomp.TRAP, "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_NOTIFY": seccomp.ESCALATE, "SCMP_ACT_LOG": seccomp.LOG,
    "SCMP_ACT_ALLOW": seccomp.ALLOW,
}  # fmt: skip
OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip


class Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@pytest.fixture(scope="session")
def libseccomp() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        pytest.skip(f"libseccomp is not here: {error}")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison),
    ]  # fmt: skip
    return library


def word(action: str, number: int) -> int:
    return ACTIONS[action] | (number if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else 0)


def theirs(library: ctypes.CDLL, profile: dict[str, Any]) -> bytes | None:
    """The profile as container runtimes give it to libseccomp; None where it finds the rules in conflict."""
    default = word(profile["defaultAction"], profile["defaultErrnoRet"])
    context = library.seccomp_init(default)
    assert context
    try:
        for rule in profile["syscalls"]:
            action = word(rule["action"], rule["errnoRet"])
            if action == default:
                continue
            tests = (Comparison * len(rule["args"]))(
                *((t["index"], OPERATORS[t["op"]], t["value"], t["valueTwo"]) for t in rule["args"])
            )
            for name in rule["names"]:
                code = library.seccomp_rule_add_array(context, action, X86[name], len(tests), tests)
                if code in (-errno.EEXIST, -errno.EINVAL):
                    return None
                assert code == 0, os.strerror(-code)
        with tempfile.TemporaryFile() as file:
            assert library.seccomp_export_bpf(context, file.fileno()) == 0
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


def ours(profile: dict[str, Any]) -> SyscallPolicy | None:
    """None where it is refused as one under which nothing could start."""
    root = documents(json.dumps(profile), where="p")[1][0]
    try:
        return seccomp_profile(root, [], machine="x86_64")
    except InvalidInput as error:
        assert "too narrow" in error.message or "escalated" in error.message, error.message  # noqa: PT017 - not the claim
        return None


NEEDED = [
    "seccomp", "prctl", "rt_sigreturn", "restart_syscall", "execve", "clone", "exit_group", "exit", "wait4", "read",
    "write", "close", "sendto", "sendmsg", "recvfrom", "recvmsg", "dup3", "setsid", "mmap", "munmap", "brk",
    "rt_sigaction", "rt_sigprocmask", "futex", "dup2", "fcntl",
]  # fmt: skip
NAMES = ["personality", "openat", "connect", "io_setup", "statx", "mkdir"]
NUMBERS = st.sampled_from([0, 1, 2, 8, 0xFFFFFFFF, 0x1_0000_0000, 0x1_0000_0001, 2**63, 2**64 - 1])
codes = st.sampled_from([errno.EPERM, errno.ENOSYS])


@st.composite
def arguments(draw: st.DrawFn) -> list[dict[str, Any]]:
    indexes = draw(st.lists(st.integers(0, 5), unique=True, max_size=3))
    return [
        {"index": i, "op": draw(st.sampled_from(sorted(OPERATORS))), "value": draw(NUMBERS), "valueTwo": draw(NUMBERS)}
        for i in indexes
    ]


@st.composite
def profiles(draw: st.DrawFn, *, alike: bool) -> dict[str, Any]:
    """`alike`: a call's rules with tests have one action, or libseccomp's reading would depend on its inner order."""
    default = draw(st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]))
    actions = st.sampled_from([action for action in sorted(ACTIONS) if action != "SCMP_ACT_TRACE"])
    rules = []
    fixed = {name: (draw(actions), draw(codes)) for name in NAMES}
    for _ in range(draw(st.integers(0, 6))):
        names = [draw(st.sampled_from(NAMES))]
        tests = draw(arguments())
        action, number = fixed[names[0]] if alike and tests else (draw(actions), draw(codes))
        rules.append({"names": names, "action": action, "errnoRet": number, "args": tests})
    if default != "SCMP_ACT_ALLOW":
        rules.append({"names": NEEDED, "action": "SCMP_ACT_ALLOW", "errnoRet": 1, "args": []})
    return {"defaultAction": default, "defaultErrnoRet": draw(codes), "syscalls": rules}


def strictness(result: int) -> int:
    """As the kernel ranks results: smaller is stricter."""
    return (result & 0xFFFF0000) - (0x1_0000_0000 if result & 0x8000_0000 else 0)


def verdict(policy: SyscallPolicy, name: str, values: tuple[int, ...]) -> int:
    """Ours, without the floor."""
    action, number = policy.verdict(name, values)
    words = {
        CallAction.KILL: seccomp.KILL_PROCESS, CallAction.KILL_THREAD: seccomp.KILL_THREAD,
        CallAction.TRAP: seccomp.TRAP, CallAction.DENY: seccomp.deny(number), CallAction.ESCALATE: seccomp.ESCALATE,
        CallAction.LOG: seccomp.LOG, CallAction.ALLOW: seccomp.ALLOW,
    }  # fmt: skip
    return words[action]


def asked(data: st.DataObject, profile: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    """A call, its arguments mostly from the profile's own values, or hardly any test would hold."""
    values = [t[key] for rule in profile["syscalls"] for t in rule["args"] for key in ("value", "valueTwo")]
    numbers = st.sampled_from(values) | NUMBERS if values else NUMBERS
    return data.draw(st.sampled_from([*NAMES, "getpid", "read"])), data.draw(st.tuples(*[numbers] * 6))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(profiles(alike=True), st.data())
def test_the_same_verdict(libseccomp: ctypes.CDLL, bpf: Any, profile: dict[str, Any], data: st.DataObject) -> None:
    program, policy = theirs(libseccomp, profile), ours(profile)
    assume(program is not None and policy is not None)
    assert program is not None
    assert policy is not None
    for _ in range(8):
        name, values = asked(data, profile)
        expected = bpf.run(program, X86[name], values, arch=bpf.ARCH["x86_64"])
        assert verdict(policy, name, values) == expected, (name, values)
        base = bpf.answer(SyscallPolicy(), name, values)
        assert bpf.answer(policy, name, values) == bpf.together([base, expected])


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(profiles(alike=False), st.data())
def test_where_rules_overlap_and_differ_never_a_laxer_one(
    libseccomp: ctypes.CDLL, bpf: Any, profile: dict[str, Any], data: st.DataObject
) -> None:
    program, policy = theirs(libseccomp, profile), ours(profile)
    assume(program is not None and policy is not None)
    assert program is not None
    assert policy is not None
    for _ in range(8):
        name, values = asked(data, profile)
        expected = bpf.run(program, X86[name], values, arch=bpf.ARCH["x86_64"])
        assert strictness(verdict(policy, name, values)) <= strictness(expected), (name, values)
