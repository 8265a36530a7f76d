"""Each forbidden thing, tried from inside a real sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from clawback.enforcement.kernel.syscalls import NUMBER
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox.filters import BASES

pytestmark = pytest.mark.kernel

CALLS = {
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 0),
    "unshare": (0x10000000,),
    "setns": (0, 0),
    "ptrace": (0, 0, 0, 0),
    "io_uring_setup": (8, 0),
    "bpf": (0, 0, 0),
    "pidfd_getfd": (0, 0, 0),
    "process_vm_readv": (1, 0, 0, 0, 0, 0),
    "open_tree": (-100, 0, 0),
    "pivot_root": (0, 0),
    "userfaultfd": (0,),
    "perf_event_open": (0, 0, 0, 0, 0),
    "keyctl": (0, 0),
    "clone": (0x10000011, 0, 0, 0, 0),
    "seccomp": (1, 8, 0),
    "memfd_create": (0, 0),
}


@pytest.mark.parametrize("base", BASES)
def test_system_calls_that_lead_out_are_refused(sandboxes: Any, base: str) -> None:
    lines = [f"seen[{name!r}] = call({NUMBER[name]}, *{arguments})" for name, arguments in CALLS.items()]
    lines.append(f"seen['clone3'] = call({NUMBER['clone3']}, 0, 0)")
    seen = sandboxes.ask("\n".join(lines), policy=SandboxPolicy(name="test", syscalls=SyscallPolicy(base=base)))
    assert seen.pop("clone3") == "ENOSYS"
    assert seen == dict.fromkeys(CALLS, "EPERM")


def test_x32_numbers_are_refused(sandboxes: Any) -> None:
    seen = sandboxes.ask("seen['x32'] = call(0x40000000 + 39)")
    assert seen["x32"] in {"EPERM", "ENOSYS"}


@pytest.mark.parametrize("base", BASES)
def test_sockets_beyond_the_internet_and_unix_are_refused(sandboxes: Any, base: str) -> None:
    seen = sandboxes.ask(
        """
for name, arguments in {"packet": (17, 3, 0), "raw": (2, 3, 1), "raw6": (10, 3, 58), "audit": (16, 3, 9),
                        "vsock": (40, 1, 0), "alg": (38, 5, 0), "tcp": (2, 1, 0), "unix": (1, 1, 0)}.items():
    seen[name] = tried(lambda: socket.socket(*arguments).close())
seen["pair"] = tried(lambda: [one.close() for one in socket.socketpair()])
""",
        policy=SandboxPolicy(name="test", syscalls=SyscallPolicy(base=base)),
    )
    allowed = {"tcp": "ok", "unix": "ok", "pair": "ok"}
    assert seen == dict.fromkeys(("packet", "raw", "raw6", "audit", "vsock", "alg"), "EPERM") | allowed


def test_terminal_input_cannot_be_forged(sandboxes: Any) -> None:
    seen = sandboxes.ask("import fcntl\nseen['push'] = tried(fcntl.ioctl, 1, 0x5412, b'x')")
    assert seen == {"push": "EPERM"}


def test_files_outside_are_not_there_and_the_system_is_read_only(sandboxes: Any) -> None:
    seen = sandboxes.ask(
        """
for path in ("/etc/shadow", "/root/.bashrc", "/home", "/boot", "/etc/crontab", "/"):
    seen[path] = tried(lambda: os.close(os.open(path, os.O_RDONLY)))
for path in ("/usr/made", "/etc/made", "/tmp/made", "/made", "/run/secrets/made", "/dev/made", "/etc/passwd"):
    seen["write " + path] = tried(lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)))
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/mem", "/proc/kcore", "/dev/mem"):
    seen[path] = tried(lambda: os.close(os.open(path, os.O_WRONLY)))
seen["visible"] = sorted(name for name in os.listdir("/proc") if name.isdigit())
seen["me"] = str(os.getpid())
"""
    )
    assert set(seen.pop("visible")) == {"1", seen.pop("me")}
    open_to_all = [what for what, how in seen.items() if how == "ok"]
    # The null device lies over what /proc cannot do without.
    assert open_to_all in ([], ["/proc/sysrq-trigger"])
    assert seen["/etc/shadow"] == "ENOENT"
    assert seen["/"] == "EACCES"


def test_only_the_gateway_can_be_connected_to(sandboxes: Any) -> None:
    seen = sandboxes.ask(
        """
def connect(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(2)
        sock.connect((host, port))
for host, port in (("127.0.0.1", 3128), ("::1", 3128), ("127.0.0.1", 22), ("192.0.2.1", 443), ("192.0.2.1", 3128)):
    seen[f"{host} {port}"] = tried(connect, host, port)
def listen():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 8080))
seen["bind"] = tried(listen)
with open("/proc/net/dev") as file:
    seen["interfaces"] = [line.split(":")[0].strip() for line in file.readlines()[2:]]
"""
    )
    assert seen == {
        "127.0.0.1 3128": "ok",
        "::1 3128": "ok",
        "127.0.0.1 22": "EACCES",
        "192.0.2.1 443": "EACCES",
        "192.0.2.1 3128": "ENETUNREACH",
        "bind": "EACCES",
        "interfaces": ["lo"],
    }


def test_without_network_nothing_can_be_connected_to(sandboxes: Any) -> None:
    policy = SandboxPolicy(name="test", network="none")
    seen = sandboxes.ask("with socket.socket() as s: seen['c'] = tried(s.connect, ('127.0.0.1', 3128))", policy=policy)
    assert seen == {"c": "EACCES"}


def test_no_capability_and_no_way_to_one(sandboxes: Any) -> None:
    seen = sandboxes.ask(
        """
for line in open("/proc/self/status"):
    key, _, value = line.partition(":")
    if key.startswith("Cap") or key in ("NoNewPrivs", "Seccomp", "Uid", "Gid"):
        seen[key] = value.split()[0]
seen["setuid"] = tried(os.setuid, 0)
seen["chroot"] = tried(os.chroot, "/tmp")
"""
    )
    zero = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
    rest = {"NoNewPrivs": "1", "Seccomp": "2", "Uid": "1000", "Gid": "1000", "setuid": "EINVAL", "chroot": "EPERM"}
    assert seen == zero | rest
