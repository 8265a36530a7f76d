"""Rules of system calls compile to BPF that says what the rules say, for any rules and any call."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clawback.enforcement.kernel import seccomp
from clawback.enforcement.kernel.syscalls import TABLES
from clawback.enforcement.policy.calls import ArgumentTest, CallAction, CallRule, SyscallPolicy
from clawback.enforcement.sandbox.filters import ALLOWED, BASES, BLOCKED, programs

X86 = TABLES["x86_64"]
NAMES = ["read", "socket", "ioctl", "personality", "openat", "connect", "madvise", "getpid", "io_setup", "statx"]
# Values at the edges of the halves, and near those that a test of only one half would take for equal.
NUMBERS = st.sampled_from(
    [0, 1, 2, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x1_0000_0000, 0x1_0000_0001, 0x7_0000_0007, 2**63, 2**64 - 1]
) | st.integers(0, 2**64 - 1)


@st.composite
def argument_tests(draw: st.DrawFn) -> ArgumentTest:
    operator = draw(st.sampled_from(["eq", "ne", "lt", "le", "ge", "gt", "masked_eq"]))
    value = draw(NUMBERS)
    mask = draw(NUMBERS) if operator == "masked_eq" else 2**64 - 1
    return ArgumentTest(argument=draw(st.integers(0, 5)), operator=operator, value=value & mask, mask=mask)


rules = st.builds(
    CallRule,
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(tuple),
    action=st.sampled_from(list(CallAction)),
    errno=st.sampled_from([errno.EPERM, errno.ENOSYS, 0, 4095]),
    tests=st.lists(argument_tests(), max_size=3).map(tuple),
)
policies = st.builds(
    SyscallPolicy,
    base=st.sampled_from(BASES),
    rules=st.lists(rules, max_size=8).map(tuple),
    otherwise=st.sampled_from(list(CallAction)),
    errno=st.sampled_from([errno.EPERM, errno.EACCES]),
)
RESULT = {
    CallAction.KILL: seccomp.KILL_PROCESS, CallAction.KILL_THREAD: seccomp.KILL_THREAD, CallAction.TRAP: seccomp.TRAP,
    CallAction.ESCALATE: seccomp.ESCALATE, CallAction.LOG: seccomp.LOG, CallAction.ALLOW: seccomp.ALLOW,
}  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(policies, st.sampled_from(NAMES), st.tuples(*[NUMBERS] * 6), st.data())
def test_the_kernel_would_do_what_the_rules_say(
    bpf: Any, policy: SyscallPolicy, name: str, arguments: tuple[int, ...], data: st.DataObject
) -> None:
    # Half of the arguments are taken from the rules' own values, or hardly any test would hold.
    values = [test.value for rule in policy.rules for test in rule.tests]
    if values and data.draw(st.booleans()):
        arguments = tuple(data.draw(st.sampled_from(values)) for _ in range(6))
    action, number = policy.verdict(name, arguments)
    wanted = seccomp.deny(number) if action is CallAction.DENY else RESULT[action]
    base = bpf.answer(SyscallPolicy(base=policy.base), name, arguments)
    assert bpf.answer(policy, name, arguments) == bpf.together([base, wanted])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(policies, st.sampled_from(sorted(BLOCKED & set(X86))))
def test_no_rules_open_what_is_blocked(bpf: Any, policy: SyscallPolicy, name: str) -> None:
    assert bpf.answer(policy, name, ()) & 0xFFFF0000 not in (seccomp.ALLOW, seccomp.LOG, seccomp.ESCALATE)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(policies, st.integers(0, 600))
def test_foreign_entries_stay_closed(bpf: Any, policy: SyscallPolicy, number: int) -> None:
    compiled = programs(policy, machine="x86_64")
    assert bpf.together(bpf.run(p.code, number, arch=0x40000003) for p in compiled) == seccomp.KILL_PROCESS
    x32 = bpf.together(bpf.run(p.code, 0x40000000 + number, arch=bpf.ARCH["x86_64"]) for p in compiled)
    assert x32 & 0xFFFF0000 not in (seccomp.ALLOW, seccomp.LOG, seccomp.ESCALATE)
    arm = programs(policy, machine="aarch64")
    assert bpf.together(bpf.run(p.code, number, arch=0x40000028) for p in arm) == seccomp.KILL_PROCESS


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(policies)
def test_a_policy_survives_json(policy: SyscallPolicy) -> None:
    import json

    from clawback.enforcement.sandbox import wire

    assert SyscallPolicy.from_json(json.loads(wire.encode(policy))) == policy


def test_what_escalates_is_one_program_that_decides_nothing_else(bpf: Any) -> None:
    policy = SyscallPolicy(rules=(CallRule(names=("connect", "ptrace"), action=CallAction.ESCALATE),))
    notify = [program for program in programs(policy) if program.notify]
    assert len(notify) == 1
    assert programs(policy)[0] is notify[0]  # the base refuses to make a listener
    assert not any(program.notify for program in programs(SyscallPolicy()))
    assert bpf.answer(policy, "connect", ()) == seccomp.ESCALATE
    assert bpf.answer(policy, "ptrace", ()) == seccomp.deny()  # refused: nobody is asked


def test_minimal_can_be_added_to_and_never_by_what_is_blocked(bpf: Any) -> None:
    assert "io_setup" not in ALLOWED
    assert bpf.answer(SyscallPolicy(base="minimal"), "io_setup", ()) == seccomp.deny()
    assert bpf.answer(SyscallPolicy(base="minimal", also=("io_setup",)), "io_setup", ()) == seccomp.ALLOW
    with pytest.raises(ValueError, match="ptrace"):
        programs(SyscallPolicy(base="minimal", also=("ptrace",)))


def test_a_program_that_the_kernel_would_not_take_is_not_made() -> None:
    tests = tuple(ArgumentTest(argument=n, operator="masked_eq", value=1, mask=3) for n in range(6))
    many = tuple(
        CallRule(names=(name,), action=CallAction.DENY, errno=number % 50 + 1, tests=tests)
        for number, name in enumerate(sorted(set(X86)))
    )
    with pytest.raises(ValueError, match="4096"):
        programs(SyscallPolicy(rules=many), machine="x86_64")


OPENSHELL = (
    "memfd_create", "ptrace", "bpf", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd",
    "pidfd_send_signal", "io_uring_setup", "mount", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount",
    "open_tree", "setns", "umount2", "pivot_root", "userfaultfd", "perf_event_open",
)  # fmt: skip


@pytest.mark.parametrize("machine", sorted(TABLES))
@pytest.mark.parametrize("base", BASES)
def test_openshells_blocked_set_is_covered(bpf: Any, base: str, machine: str) -> None:
    policy = SyscallPolicy(base=base)
    for name in OPENSHELL:
        assert bpf.answer(policy, name, (), machine) == seccomp.deny(), name
    user_namespace, packet, bluetooth, vsock, netlink = 0x10000000, 17, 31, 40, 16
    assert bpf.answer(policy, "execveat", (3, 0, 0, 0, 0x1000), machine) == seccomp.deny()
    for name in ("unshare", "clone"):
        assert bpf.answer(policy, name, (user_namespace,), machine) == seccomp.deny()
    assert bpf.answer(policy, "clone3", (), machine) == seccomp.deny(errno.ENOSYS)
    assert bpf.answer(policy, "seccomp", (1, 8), machine) == seccomp.deny()  # a listener of its own
    for family in (packet, bluetooth, vsock):
        assert bpf.answer(policy, "socket", (family, 1), machine) == seccomp.deny()
    assert bpf.answer(policy, "socket", (netlink, 3, 4), machine) == seccomp.deny()
