"""The kinds of attempts: each tries one thing in its own process and says whether it was refused, and how.

A refusal is an errno that says no. Any other failure, as for want of descriptors, is raised: the agent may have had a
hand in it, and it must not pass for a denial.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import socket
import stat
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from clawback.enforcement.kernel import libc, seccomp
from clawback.enforcement.kernel.syscalls import NUMBER
from clawback.enforcement.sandbox import filters
from clawback.enforcement.sandbox.record import GATEWAY_PORT

__all__ = ["TRY", "limits"]

_NETWORK_TIMEOUT = 2.0
_DENIED = {errno.EPERM, errno.ENOSYS, errno.EACCES}
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EROFS}
_UNREACHABLE = {
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT,
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN,
}  # fmt: skip
_FORKS = {"fork", "vfork", "clone", "clone3"}
_MAX_ANSWER = 8192
_BY = re.compile(rb'\r\nproxy-status: clawback; error=[a-z_]+; details="([ -~]{1,1024}?)"(?=\r\n|\Z)', re.IGNORECASE)
_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


def limits() -> list[tuple[int, int]]:
    """Soft and hard limits of this process."""
    return [resource.getrlimit(number) for number in _LIMITS]


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _refused(error: OSError, more: Collection[int]) -> tuple[bool, str]:
    """A failure that says no. Others, as for want of descriptors or memory, say nothing, and are raised again."""
    if error.errno not in _DENIED and error.errno not in more:
        raise error
    return True, _name(error)


def _open(path: str) -> tuple[bool, str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        return _refused(error, _NOT_THERE)
    try:
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3) and path != "/dev/null":
            return True, "masked by the null device"
        if stat.S_ISDIR(status.st_mode):
            return False, "opened, a folder"
        try:
            return False, "opened, readable" if os.read(fd, 1) else "opened, empty"
        except OSError as error:
            return True, f"opened, reading: {_name(error)}"
    finally:
        os.close(fd)


def _ask_gateway(request: bytes) -> tuple[bool, str]:
    """Send a request to the gateway; denied where it says 403 or cannot be reached. Silence is no denial.

    What denied, or holds the request, is said behind the status, as the gateway names it (RFC 9209): it passes no such
    word of a destination's on.
    """
    answer = b""
    reached = False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(_NETWORK_TIMEOUT)
            sock.connect(("127.0.0.1", GATEWAY_PORT))
            reached = True
            sock.sendall(request)
            while b"\r\n\r\n" not in answer and len(answer) < _MAX_ANSWER:
                part = sock.recv(1024)
                if not part:
                    break
                answer += part
    except TimeoutError:
        if b"\r\n" not in answer:
            return not reached, "no answer from the gateway" if reached else "ETIMEDOUT"
    except OSError as error:
        return _refused(error, _UNREACHABLE)
    head = answer.partition(b"\r\n\r\n")[0]
    words = head.split(b"\r\n", 1)[0].decode("utf-8", "backslashreplace").split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return True, "connection closed without an answer"
    by = _BY.search(head)
    return words[1] == "403", " ".join(["HTTP", *words[1:]]) + (f", by {by[1].decode()}" if by else "")


def _connect(target: str) -> tuple[bool, str]:
    line = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
    return _ask_gateway(line.encode())


def _http(target: str) -> tuple[bool, str]:
    method, _, rest = target.partition(" ")
    url, _, body = rest.partition(" ")
    parts = urlsplit(url)
    if parts.scheme == "https":
        denied, detail = _connect(f"{parts.hostname}:{parts.port or 443}")
        return denied, f"CONNECT: {detail}"
    data = body.encode()
    head = f"{method} {url} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
    kind = "Content-Type: application/json\r\n" if data else ""
    return _ask_gateway(f"{head}{kind}\r\n".encode() + data)


def _syscall(name: str) -> tuple[bool, str]:
    if name not in NUMBER:
        return True, "ENOSYS: no such call on this machine"
    # A null flag word asks these two for nothing; what is meant is a namespace.
    flags = {"unshare": libc.CLONE_NEWUSER, "clone": libc.CLONE_NEWUSER | signal.SIGCHLD}.get(name, 0)
    try:
        result = libc.syscall(NUMBER[name], flags, 0, 0, 0, 0, 0)
    except OSError as error:
        return error.errno in _DENIED or (name in _FORKS and error.errno == errno.EAGAIN), _name(error)
    if result == 0 and name in _FORKS:
        os._exit(0)
    return False, f"returned {result}"


def _spawn(path: str) -> tuple[bool, str]:
    """Whether a program starts. It may be the agent's own: what starts can start nothing else before it is killed."""
    read, write = os.pipe2(os.O_CLOEXEC)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    alone = filters.denying(tuple(sorted(_FORKS)))
    try:
        child = os.fork()
    except OSError as error:
        return _refused(error, {errno.EAGAIN})
    if child == 0:
        try:
            for number in range(3):
                os.dup2(null, number)
            seccomp.install(alone, log=False)
            os.execve(path, [path], {"PATH": "/usr/bin:/bin"})  # noqa: S606 - no shell is the point
        except OSError as error:
            os.write(write, (error.errno or errno.EIO).to_bytes(2, "little"))
        finally:
            os._exit(127)
    os.close(write)
    failure = os.read(read, 2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if failure:
        return _refused(OSError(int.from_bytes(failure, "little"), path), {*_NOT_THERE, errno.ENOEXEC})
    return False, "started"


TRY: dict[str, Callable[[str], tuple[bool, str]]] = {
    "open": _open,
    "http": _http,
    "connect": _connect,
    "syscall": _syscall,
    "spawn": _spawn,
}
"""By kind: takes a target, returns whether it was denied and the errno or answer in words."""
