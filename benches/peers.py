"""Other makers of sandboxes, each told to isolate as Clawback does, as far as it can.

All get the seven namespaces that Clawback gives (user, mount, pid, network, IPC, UTS, cgroup), the same read-only
folders, a /tmp of their own, no capability, no_new_privs, no network, and the same denied system calls: `bwrap` by
the same programs, the others by a list of names that libseccomp or kafel compiles at every start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from clawback.enforcement.kernel import libc, mounts
from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.sandbox.filters import BLOCKED, programs
from clawback.enforcement.sandbox.interpreter import BASE

__all__ = ["NAMES", "Peer", "Run", "Unable", "started", "version"]

NAMES = ("bwrap", "crun", "runc", "nsjail")
_ETC = ("ld.so.cache", "ssl", "ca-certificates", "alternatives", "localtime")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
_SECONDS = 20.0
_ID = 1000
_OUTSIDE = 2_470_000
"""The host's user id of what runs inside."""


class Unable(Exception):
    """Why something cannot be measured here, in one line."""


class Run(NamedTuple):
    """One run: its exit status, when it began (ns since 1970), and how long it took to end, in ms."""

    status: int
    began_ns: int
    elapsed: float


@dataclass(slots=True)
class Peer:
    """A command line that runs `command` in a new sandbox and ends when that has ended, with its status."""

    arguments: tuple[str, ...]
    fresh_id: bool
    """Whether the last argument is a container's name, which must be a new one each time."""
    filters: bool
    """Whether it reads seccomp programs from descriptors."""
    namespace: int | None = None
    """A mount namespace to start it in."""
    number: int = 0

    def run(self, output: int) -> Run:
        """Run it once, its standard output going to this descriptor. From a child of ours, whose fork is not timed."""
        arguments = list(self.arguments)
        fds = []
        if self.filters:
            fds = [_memory(program.code) for program in programs(SyscallPolicy())]
            arguments[1:1] = [word for fd in fds for word in ("--add-seccomp-fd", str(fd))]
        if self.fresh_id:
            self.number += 1
            arguments[-1] += str(self.number)
        answer, end = os.pipe()
        child = os.fork()
        if child == 0:
            _child(self.namespace, arguments, output, end)
        os.close(end)
        with os.fdopen(answer, "rb") as file:
            said = json.loads(file.read() or "null")
        os.waitpid(child, 0)
        for fd in fds:
            os.close(fd)
        if said is None:
            raise Unable(f"{arguments[0]}: not started")
        return Run(*said)


def _child(namespace: int | None, arguments: list[str], output: int, end: int) -> NoReturn:
    try:
        if namespace is not None:
            libc.setns(namespace, libc.CLONE_NEWNS)
        actions = [(os.POSIX_SPAWN_DUP2, output, 1)]
        began_ns, began = time.time_ns(), time.perf_counter()
        pid = os.posix_spawn(arguments[0], arguments, _ENVIRONMENT, file_actions=actions)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(end, json.dumps([status, began_ns, (time.perf_counter() - began) * 1e3]).encode())
    finally:
        os._exit(0)


def version(name: str) -> str:
    """What it says of itself, or `not installed`."""
    path = shutil.which(name)
    if path is None:
        return "not installed"
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    words = (done.stdout or done.stderr).split()
    return next((word for word in words if word[:1].isdigit()), "unknown")


@contextlib.contextmanager
def started(name: str, command: Sequence[str]) -> Iterator[Peer]:
    """Ready to run `command`, and tried once. `Unable` where it is not installed or does not work here."""
    path = shutil.which(name)
    if path is None:
        raise Unable(f"{name}: not installed")
    with tempfile.TemporaryDirectory(prefix=f"clawback-{name}-") as folder:
        if name == "bwrap":
            peer = Peer((path, *_bwrap(), *command), fresh_id=False, filters=True)
        elif name == "nsjail":
            peer = Peer((path, *_nsjail(), "--", *command), fresh_id=False, filters=False)
        else:
            peer = Peer(_container(path, Path(folder), command), fresh_id=True, filters=False)
            peer.namespace = _unified()
        try:
            _tried(name, peer)
            yield peer
        finally:
            if peer.namespace is not None:
                os.close(peer.namespace)


def _tried(name: str, peer: Peer) -> None:
    with tempfile.TemporaryFile() as said:
        errors = os.dup(2)
        os.dup2(said.fileno(), 2)  # it says here why it does not work
        try:
            status = peer.run(said.fileno()).status
        finally:
            os.dup2(errors, 2)
            os.close(errors)
        if status:
            said.seek(0)
            words = " ".join(said.read(1000).decode(errors="replace").split())
            raise Unable(f"{name}: status {status}: {words[:200]}")


def _unified() -> int | None:
    """Where the host has both versions of cgroups, which crun refuses: a mount namespace that shows version 2 alone."""
    if not Path("/sys/fs/cgroup/unified").exists() or os.geteuid() != 0:
        return None
    ready, made = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc.unshare(libc.CLONE_NEWNS)
            mounts.make_private()
            libc.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")
            os.write(made, b"+")
            signal.pause()
        finally:
            os._exit(0)
    os.close(made)
    try:
        return os.open(f"/proc/{child}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC) if os.read(ready, 1) else None
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _memory(code: bytes) -> int:
    fd = os.memfd_create("filter", 0)
    os.write(fd, code)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _folders() -> tuple[list[str], list[tuple[str, str]]]:
    """What is shown of the host read-only, and (path, target) of its links."""
    base = [Path(path) for path in BASE]
    shown = [str(path) for path in base if path.is_dir() and not path.is_symlink()]
    shown += [f"/etc/{name}" for name in _ETC if Path("/etc", name).exists()]
    return shown, [(str(path), str(path.readlink())) for path in base if path.is_symlink()]


def _bwrap() -> list[str]:
    shown, links = _folders()
    arguments = ["--unshare-all", "--unshare-user", "--uid", str(_ID), "--gid", str(_ID), "--hostname", "sandbox"]
    arguments += [word for path, target in links for word in ("--symlink", target, path)]
    arguments += [word for path in shown for word in ("--ro-bind", path, path)]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run/secrets", "--dir", "/sys"]
    return [*arguments, "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--remount-ro", "/"]


def _nsjail() -> list[str]:
    """Not in Debian 12: written after its own help, and left out with a note where it does not start."""
    shown, links = _folders()
    arguments = ["--mode", "o", "--really_quiet", "--hostname", "sandbox", "--user", str(_ID), "--group", str(_ID)]
    arguments += ["--rlimit_as", "max", "--tmpfsmount", "/tmp", "--tmpfsmount", "/run/secrets"]
    arguments += [word for path in shown for word in ("--bindmount_ro", path)]
    arguments += [word for path, target in links for word in ("--symlink", f"{target}:{path}")]
    denied = ", ".join(sorted(BLOCKED & _KAFEL))
    return [*arguments, "--seccomp_string", f"POLICY clawback {{ ERRNO(1) {{ {denied} }} }} USE clawback DEFAULT ALLOW"]


_KAFEL = {
    *("ptrace", "bpf", "process_vm_readv", "process_vm_writev", "kcmp", "mount", "umount2", "pivot_root", "chroot"),
    *("setns", "open_by_handle_at", "name_to_handle_at", "perf_event_open", "fanotify_init", "fanotify_mark"),
    *("add_key", "request_key", "keyctl", "init_module", "finit_module", "delete_module", "kexec_load", "reboot"),
    *("kexec_file_load", "swapon", "swapoff", "acct", "quotactl", "settimeofday", "clock_settime", "clock_adjtime"),
    *("adjtimex", "sethostname", "setdomainname", "syslog", "vhangup", "iopl", "ioperm", "modify_ldt", "mknod"),
    *("mknodat", "move_pages", "migrate_pages", "mbind", "set_mempolicy", "remap_file_pages", "memfd_create"),
}
"""Names that kafel has known for long; an unknown one is an error to it."""


def _container(path: str, folder: Path, command: Sequence[str]) -> tuple[str, ...]:
    """An OCI bundle. The runtime makes no cgroup, which is what costs it most of a start."""
    root = folder / "rootfs"
    shown, links = _folders()
    for one in (*shown, "/proc", "/dev", "/tmp", "/sys", "/run/secrets"):
        place = root / one[1:]
        if Path(one).is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        else:
            place.mkdir(parents=True, exist_ok=True)
    for one, target in links:
        (root / one[1:]).symlink_to(target)
    folder.chmod(0o755)  # the ids inside are nobody's here, and must reach the root
    (folder / "config.json").write_text(json.dumps(_bundle(shown, command)))
    manager = "--cgroup-manager=disabled" if path.endswith("crun") else "--rootless=true"
    return (path, manager, f"--root={folder}/state", "run", f"--bundle={folder}", f"clawback-{os.getpid()}-")


def _bundle(shown: list[str], command: Sequence[str]) -> dict[str, object]:
    private = ["nosuid", "nodev", "mode=755"]
    places: list[dict[str, object]] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    places += [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": [*private, "size=64k"]}]
    for one in ("/tmp", "/run/secrets"):
        places.append({"destination": one, "type": "tmpfs", "source": "tmpfs", "options": private})
    options = ["rbind", "ro", "nosuid"]
    places += [{"destination": one, "type": "bind", "source": one, "options": options} for one in shown]
    ids = [{"containerID": 0, "hostID": _OUTSIDE, "size": 65536}]
    capabilities: dict[str, list[str]] = {
        name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": _ID, "gid": _ID},
            "args": list(command),
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": capabilities,
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sandbox",
        "mounts": places,
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": [{"type": kind} for kind in ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": sorted(BLOCKED), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            },
        },
    }
