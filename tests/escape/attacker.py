"""What attempts share: raw system calls, the three ways an attempt can end, and how one is read and run.

Runs inside sandboxes under the system's own Python: nothing but the standard library.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import json
import os
import platform
import select
import signal
import socket
import struct
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

_CALLS = {
    "x86_64": dict(
        ptrace=101, syslog=103, personality=135, modify_ldt=154, pivot_root=155, adjtimex=159, chroot=161, acct=163,
        mount=165, umount2=166, swapon=167, reboot=169, sethostname=170, setdomainname=171, iopl=172, ioperm=173,
        init_module=175, delete_module=176, quotactl=179, clock_settime=227, mbind=237, mq_open=240,
        mq_timedreceive=243, kexec_load=246, add_key=248, request_key=249, keyctl=250, migrate_pages=256, mknodat=259,
        unshare=272, move_pages=279, perf_event_open=298, fanotify_init=300, prlimit64=302, name_to_handle_at=303,
        open_by_handle_at=304, clock_adjtime=305, setns=308, process_vm_readv=310, process_vm_writev=311, kcmp=312,
        finit_module=313, sched_setattr=314, seccomp=317, memfd_create=319, kexec_file_load=320, bpf=321, execveat=322,
        userfaultfd=323, clone=56, ioctl=16, capset=126, settimeofday=164,
    ),
    "aarch64": dict(
        ptrace=117, syslog=116, personality=92, pivot_root=41, adjtimex=171, chroot=51, acct=89, mount=40, umount2=39,
        swapon=224, reboot=142, sethostname=161, setdomainname=162, init_module=105, delete_module=106, quotactl=60,
        clock_settime=112, mbind=235, mq_open=180, mq_timedreceive=183, kexec_load=104, add_key=217, request_key=218,
        keyctl=219, migrate_pages=238, mknodat=33, unshare=97, move_pages=239, perf_event_open=241, fanotify_init=262,
        prlimit64=261, name_to_handle_at=264, open_by_handle_at=265, clock_adjtime=266, setns=268,
        process_vm_readv=270, process_vm_writev=271, kcmp=272, finit_module=273, sched_setattr=274, seccomp=277,
        memfd_create=279, kexec_file_load=294, bpf=280, execveat=281, userfaultfd=282, clone=220, ioctl=29, capset=91,
        settimeofday=170,
    ),
}  # fmt: skip
# The same number everywhere, asm-generic/unistd.h.
_COMMON = dict(
    pidfd_send_signal=424, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, open_tree=428,
    move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433, pidfd_open=434, clone3=435, pidfd_getfd=438,
    process_madvise=440, mount_setattr=442, quotactl_fd=443, landlock_create_ruleset=444, landlock_restrict_self=446,
    memfd_secret=447, process_mrelease=448, set_mempolicy_home_node=450, statmount=457, listmount=458,
    lsm_set_self_attr=460, open_tree_attr=467,
)  # fmt: skip
NUMBER = _CALLS.get(platform.machine(), {}) | _COMMON

REFUSALS = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EROFS})


class Refused(Exception):
    """The attempt was stopped by something that is no errno."""


class Impossible(Exception):
    """This machine has nothing to attack here: nothing was learned."""


def call(name: str, *arguments: object) -> int:
    """A raw system call; `OSError` where it fails."""
    if name not in NUMBER:
        raise Impossible(f"no system call {name} on {platform.machine()}")
    plain = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = LIBC.syscall(ctypes.c_long(NUMBER[name]), *plain)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


def libc(name: str, *arguments: object) -> int:
    """A function of the C library that answers -1 on failure."""
    result = getattr(LIBC, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


def first(*actions) -> str:
    """The first action that succeeds is an escape; where all fail, the last failure is the outcome.

    Each is a callable that returns a sentence. What an errno means is decided by the attempt's front matter, once.
    """
    failure: Exception = Impossible("nothing to try")
    for action in actions:
        try:
            return action()
        except (Refused, Impossible) as error:
            failure = error
        except OSError as error:
            if not refused_by(error):
                raise
            failure = error
    raise failure


ALSO: set[int] = set()
"""Errnos that are a refusal too, for the attempt that runs in this process."""


def refused_by(error: OSError) -> bool:
    return error.errno in REFUSALS or error.errno in ALSO


def in_child(action, *, seconds: float = 2.0) -> str:
    """Run an action in a child, for what may kill or change the process. Its sentence, or its failure raised here."""
    read, write = os.pipe()
    try:
        child = os.fork()
    except BlockingIOError as error:
        raise Refused(f"no child can be started: {error.strerror}") from None
    if child == 0:
        try:
            answer = outcome(action)
            os.write(write, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(write)
    signal.setitimer(signal.ITIMER_REAL, 0)
    data = _read_for(read, seconds)
    os.close(read)
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    _, status = os.waitpid(child, 0)
    if not data:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        raise Refused(f"killed by {signal.Signals(number).name}" if number else "the child ended without a word")
    answer = json.loads(data)
    if answer["outcome"] == "escaped":
        return answer["sentence"]
    raise (Refused if answer["outcome"] == "refused" else Impossible)(answer["sentence"])


def _read_for(fd: int, seconds: float) -> bytes:
    return os.read(fd, 65536) if select.select([fd], [], [], seconds)[0] else b""


def outcome(action) -> dict[str, str]:
    """Run it and say in one sentence what came of it."""
    try:
        return {"outcome": "escaped", "sentence": str(action())}
    except Impossible as error:
        return {"outcome": "impossible-here", "sentence": str(error)}
    except Refused as error:
        return {"outcome": "refused", "sentence": str(error)}
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        sentence = f"{error.strerror or error} ({name})"
        if refused_by(error):
            return {"outcome": "refused", "sentence": sentence}
        return {"outcome": "escaped", "sentence": f"the kernel took the call: {sentence}"}
    except RuntimeError as error:
        return {"outcome": "refused", "sentence": f"{error} (RuntimeError)"}
    except MemoryError:
        return {"outcome": "refused", "sentence": "no memory (MemoryError)"}


def front_matter(path: Path) -> dict[str, str]:
    """Of an attempt's docstring: `title`, and its lines of `key: value`."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    lines = text.splitlines()
    found = {"title": lines[0].rstrip(".") if lines else "", "name": path.stem}
    for line in lines[1:]:
        key, colon, value = line.partition(":")
        if colon:
            found[key.strip()] = value.strip()
    return found


def load(path: Path) -> dict[str, object]:
    """The attempt's names: `attempt`, and perhaps `prepare`, which comes before quarantine."""
    about = front_matter(path)
    namespace: dict[str, object] = {"__name__": path.stem}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    ALSO.clear()
    ALSO.update(getattr(errno, name) for name in about.get("also refused by", "").replace(",", " ").split())
    return namespace


def run(path: Path, world: dict, ready=lambda: None) -> dict[str, str]:
    """Prepare, wait for the word of `ready`, attempt; the outcome."""
    names = load(path)
    if "prepare" in names:
        names["prepare"](world)
    ready()
    return outcome(lambda: names["attempt"](world))


def line(answer: bytes) -> bytes:
    """The first line of an answer."""
    return answer.partition(b"\r\n")[0]


def exchange(family: int, kind: int, address: object, data: bytes, *, seconds: float = 1.0) -> bytes:
    """Send to an address and wait for what it answers. An answer is the proof that something was reached."""
    with socket.socket(family, kind) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect(address)
            sock.sendall(data)
            return sock.recv(65536)
        except TimeoutError:
            raise Refused(f"no answer from {address!r}") from None


def reach(family: int, kind: int, address: object, data: bytes) -> str:
    """`exchange`, as a sentence."""
    answer = exchange(family, kind, address, data)
    if not answer:
        raise Refused(f"{address!r} closed without an answer")
    return f"{address!r} answered {answer[:40]!r}"


def each(values, action):
    """One action for each value, for `first`."""
    return [lambda value=value: action(value) for value in values]


def timespec(seconds: int, nanoseconds: int) -> ctypes.Array:
    return ctypes.create_string_buffer(struct.pack("qq", seconds, nanoseconds))
