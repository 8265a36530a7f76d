"""Seccomp's classic BPF interpreted, the kernel's choice among several filters, what a whole policy comes to, and
what libseccomp makes of a profile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from clawback.enforcement.kernel import seccomp
from clawback.enforcement.kernel.syscalls import TABLES
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.sandbox.filters import ALLOWED, programs

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(program: bytes, number: int, arguments: tuple[int, ...] = (), *, arch: int) -> int:
    """What a program says to one `struct seccomp_data`."""
    words = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *words)
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
            case 0x25:
                at += yes if accumulator > k else no
            case 0x35:
                at += yes if accumulator >= k else no
            case 0x45:
                at += yes if accumulator & k else no
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(hex(operation))


def together(results: Iterable[int]) -> int:
    """Of several filters' answers, the newest first, the one that counts: the strictest as the kernel compares."""
    return min(results, key=lambda result: (result & 0xFFFF0000) - (0x100000000 if result & 0x80000000 else 0))


class Bpf:
    """For tests to use."""

    ARCH = ARCH
    run = staticmethod(run)
    together = staticmethod(together)

    @staticmethod
    def answer(policy: SyscallPolicy, name: str, arguments: tuple[int, ...] = (), machine: str = "x86_64") -> int:
        """The kernel's, under all of a policy's filters."""
        number, arch = TABLES[machine][name], ARCH[machine]
        return together(run(p.code, number, arguments, arch=arch) for p in reversed(programs(policy, machine=machine)))


@pytest.fixture(scope="session")
def bpf() -> type[Bpf]:
    return Bpf


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
                *((t["index"], OPERATORS[t["op"]], t["value"], t.get("valueTwo", 0)) for t in rule["args"])
            )
            for name in rule["names"]:
                code = library.seccomp_rule_add_array(context, action, TABLES["x86_64"][name], len(tests), tests)
                if code in (-errno.EEXIST, -errno.EINVAL):
                    return None
                assert code == 0, os.strerror(-code)
        with tempfile.TemporaryFile() as file:
            assert library.seccomp_export_bpf(context, file.fileno()) == 0
            file.seek(0)
            return file.read()
    finally:
        library.seccomp_release(context)


@pytest.fixture(scope="session")
def exported(libseccomp: ctypes.CDLL) -> Callable[[dict[str, Any]], bytes | None]:
    """Profile → libseccomp's program; None where it finds the rules in conflict."""
    return lambda profile: theirs(libseccomp, profile)


@pytest.fixture(scope="session")
def docker_like() -> dict[str, Any]:
    """As long and as shaped as the default profile of container runtimes."""
    checked = {"clone", "clone3", "personality", "socket", "unshare"}
    foreign = ["_llseek", "chown32", "clock_gettime64", "fcntl64", "mmap2", "socketcall", "waitpid", "sigreturn"]
    personalities = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
    more = ["io_setup", "io_submit", "io_getevents", "io_destroy", "name_to_handle_at", "memfd_create", "mq_open"]

    def allowed(*names: str, **rest: Any) -> dict[str, Any]:
        return {"names": list(names), "action": "SCMP_ACT_ALLOW"} | rest

    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": [
            allowed(*sorted(ALLOWED - checked), *foreign, *more),
            allowed("process_vm_readv", "process_vm_writev", "ptrace", includes={"minKernel": "4.8"}),
            allowed("socket", args=[{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]),
            *(
                allowed("personality", args=[{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}])
                for value in personalities
            ),
            allowed("arch_prctl", includes={"arches": ["amd64", "x32"]}),
            allowed("modify_ldt", includes={"arches": ["amd64", "x32", "x86"]}),
            allowed("s390_pci_mmio_read", includes={"arches": ["s390", "s390x"]}),
            allowed("open_by_handle_at", includes={"caps": ["CAP_DAC_READ_SEARCH"]}),
            allowed(
                "bpf", "clone", "clone3", "fanotify_init", "mount", "setns", "umount2", "unshare",
                includes={"caps": ["CAP_SYS_ADMIN"]},
            ),
            allowed("reboot", includes={"caps": ["CAP_SYS_BOOT"]}),
            allowed(
                "clone",
                args=[{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                excludes={"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]},
            ),
            {
                "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
                "excludes": {"caps": ["CAP_SYS_ADMIN"]},
            },
            allowed("kcmp", "pidfd_getfd", includes={"caps": ["CAP_SYS_PTRACE"]}),
        ],
    }  # fmt: skip
