"""Seccomp profiles mean what libseccomp makes of them: the same verdict, and where it leaves that open no laxer one.

Both are compiled to BPF and interpreted: libseccomp's by way of its own export.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
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
Export = Callable[[dict[str, Any]], bytes | None]
OPERATORS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]
ACTIONS = ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO", "NOTIFY", "LOG", "ALLOW"]


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
        {
            "index": i,
            "op": "SCMP_CMP_" + draw(st.sampled_from(OPERATORS)),
            "value": draw(NUMBERS),
            "valueTwo": draw(NUMBERS),
        }
        for i in indexes
    ]


@st.composite
def profiles(draw: st.DrawFn, *, alike: bool) -> dict[str, Any]:
    """`alike`: a call's rules with tests have one action, or libseccomp's reading would depend on its inner order.

    A call has either one rule with several tests of any kind, or several rules with one test for equality (as in what
    is in use): once libseccomp has followed a rule's first comparison, which may be of half a value, it does not come
    back for another rule when a later one fails, and so misses rules that hold.
    """
    default = draw(st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]))
    actions = st.sampled_from(["SCMP_ACT_" + word for word in ACTIONS])
    rules = []
    single = {name: draw(st.booleans()) for name in NAMES}
    fixed = {name: (draw(actions), draw(codes)) for name in NAMES}
    for _ in range(draw(st.integers(0, 6))):
        names = [draw(st.sampled_from(NAMES))]
        tests = draw(arguments())
        if single[names[0]]:
            tests = [test | {"op": "SCMP_CMP_EQ", "index": 1} for test in tests[:1]]
        elif any(rule["names"] == names and rule["args"] for rule in rules):
            tests = []
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
@settings(max_examples=150, deadline=None)
@given(profiles(alike=True), st.data())
def test_the_same_verdict(exported: Export, bpf: Any, profile: dict[str, Any], data: st.DataObject) -> None:
    program, policy = exported(profile), ours(profile)
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
@settings(max_examples=150, deadline=None)
@given(profiles(alike=False), st.data())
def test_where_rules_overlap_and_differ_never_a_laxer_one(
    exported: Export, bpf: Any, profile: dict[str, Any], data: st.DataObject
) -> None:
    program, policy = exported(profile), ours(profile)
    assume(program is not None and policy is not None)
    assert program is not None
    assert policy is not None
    for _ in range(8):
        name, values = asked(data, profile)
        expected = bpf.run(program, X86[name], values, arch=bpf.ARCH["x86_64"])
        assert strictness(verdict(policy, name, values)) <= strictness(expected), (name, values)
