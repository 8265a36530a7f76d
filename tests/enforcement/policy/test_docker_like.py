"""A profile as large as container runtimes' default one: libseccomp's verdict for every call, and small enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from clawback.enforcement.kernel import seccomp
from clawback.enforcement.kernel.syscalls import TABLES
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.loader import load
from clawback.enforcement.sandbox.filters import programs

X86 = TABLES["x86_64"]
Export = Callable[[dict[str, Any]], bytes | None]


def plain(profile: dict[str, Any]) -> dict[str, Any]:
    """What is left for libseccomp once a runtime has looked at `includes` and `excludes` for a process without
    capabilities, and at which calls there are."""
    rules = [
        {"errnoRet": 1, "args": []} | rule | {"names": [name for name in rule["names"] if name in X86]}
        for rule in profile["syscalls"]
        if not rule.get("includes", {}).get("caps")
        and "amd64" in rule.get("includes", {}).get("arches", ["amd64"])
        and "amd64" not in rule.get("excludes", {}).get("arches", [])
    ]
    return profile | {"syscalls": rules}


def test_the_verdict_is_libseccomps_for_every_call(docker_like: dict[str, Any], exported: Export, bpf: Any) -> None:
    policy = load(json.dumps(docker_like), where="p").sandbox.syscalls
    program = exported(plain(docker_like))
    assert program is not None
    values = (0, 1, 2, 8, 16, 17, 40, 0x20000, 0x20008, 0x11, 0x10000011, 0x7E020000, 0xFFFFFFFF, 2**32, 2**64 - 1)
    arch = bpf.ARCH["x86_64"]
    tested = {name for rule in docker_like["syscalls"] if rule.get("args") for name in rule["names"]}
    for name in X86:
        for first in values if name in tested else (0,):
            expected = bpf.run(program, X86[name], (first,), arch=arch)
            action, number = policy.verdict(name, (first,))
            words = {"allow": seccomp.ALLOW, "deny": seccomp.deny(number)}
            assert words[action] == expected, (name, first)
            base = bpf.answer(SyscallPolicy(), name, (first,))
            quiet = name == "clone3"  # its refusal is the floor's own, with ENOSYS
            assert bpf.answer(policy, name, (first,)) == (base if quiet else bpf.together([base, expected]))


@pytest.mark.parametrize("machine", sorted(TABLES))
def test_it_fits(docker_like: dict[str, Any], machine: str) -> None:
    policy = load(json.dumps(docker_like), where="p").sandbox.syscalls
    assert max(len(program.code) // 8 for program in programs(policy, machine=machine)) < 500


def test_what_it_leaves_to_capabilities_stays_closed(docker_like: dict[str, Any], bpf: Any) -> None:
    policy = load(json.dumps(docker_like), where="p").sandbox.syscalls
    for name in ("mount", "bpf", "ptrace", "reboot", "kcmp", "setns"):
        assert bpf.answer(policy, name) == seccomp.deny(), name
    assert bpf.answer(policy, "personality", (0x20008,)) == seccomp.ALLOW
    assert bpf.answer(policy, "personality", (1,)) == seccomp.deny()
    assert bpf.answer(policy, "clone", (0x10000000,)) == seccomp.deny()
    assert bpf.answer(policy, "socket", (40, 1)) == seccomp.deny()
    assert bpf.answer(policy, "clone3") == seccomp.deny(38)
