"""Follow a recipe in Python: what `native/` does in C, operation by operation."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clawback.enforcement.kernel import capabilities, libc, mounts, namespaces, paths
from clawback.enforcement.sandbox.recipe import Fields, Op, steps

__all__ = ["Follower"]

_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_SET_MODE_FILTER = 1


def _errno_of(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _open_root() -> None:
    os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _connect() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(("127.0.0.1", 1))


def _listen(port: int, backlog: int) -> socket.socket:
    """The gateway's socket: one for IPv4 and IPv6; only loopback exists here, so any address is loopback."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", port))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("::", port))
    sock.listen(backlog)
    return sock


@dataclass(slots=True)
class Follower:
    """One process that becomes what a recipe says. `fds` are what its operations name by index.

    The caller handles the operations in `others`. `root`, `port` are the errno numbers that the probe saw; `canaries`
    has a 0 or 1 for each decoy; `listener` is the gateway's socket and `held` the listener of what escalates.
    """

    fds: Sequence[int] = ()
    others: dict[Op, Callable[[Fields], None]] = field(default_factory=dict)
    root: int = 0
    port: int = 0
    canaries: str = ""
    listener: socket.socket | None = None
    held: int = -1
    _ruleset: int = -1

    def follow(self, recipe: bytes) -> None:
        """Each operation in order. `OSError` where one fails, `ValueError` for what is no recipe."""
        for op, fields in steps(recipe):
            action = self.others.get(op) or getattr(self, f"_{op.name.lower()}")
            action(fields)
            fields.done()

    def _join(self, given: Fields) -> None:
        os.write(
            self.fds[given.number()], b"0"
        )  # the writer itself; a thread that moves itself waits for no grace period

    def _unshare(self, given: Fields) -> None:
        libc.unshare(given.number())

    def _ids(self, given: Fields) -> None:
        uid, gid = given.number(), given.number()
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def _bounding(self, given: Fields) -> None:
        capabilities.drop_bounding(given.number())

    def _hostname(self, given: Fields) -> None:
        libc.sethostname(given.text())

    def _mount(self, given: Fields) -> None:
        source, target, kind, flags, data = given.text(), given.text(), given.text(), given.word(), given.text()
        libc.mount(source or None, target, kind or None, flags, data or None)

    def _loopback(self, _given: Fields) -> None:
        namespaces.loopback(up=True)

    def _listen(self, given: Fields) -> None:
        self.listener = _listen(given.number(), given.number())

    def _mkdir(self, given: Fields) -> None:
        os.mkdir(given.text(), given.number())

    def _mkdirs(self, given: Fields) -> None:
        os.close(paths.opened(given.text(), make=True))

    def _touch(self, given: Fields) -> None:
        folder, _, name = given.text().rpartition("/")
        place = paths.opened(folder, make=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            os.close(os.open(name, flags, 0o644, dir_fd=place))
        except FileExistsError:
            return
        finally:
            os.close(place)

    def _symlink(self, given: Fields) -> None:
        os.symlink(given.text(), given.text())

    def _file(self, given: Fields) -> None:
        path, mode, data = given.text(), given.number(), given.data()
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)

    def _attach(self, given: Fields) -> None:
        mounts.attach(self.fds[given.number()], given.text())

    def _bind(self, given: Fields) -> None:
        source, target, attributes, if_folder = given.text(), given.text(), given.word(), given.number()
        if if_folder and not os.path.isdir(source):
            return
        tree = mounts.copy(source, attributes)
        try:
            mounts.attach(tree, target)
        finally:
            os.close(tree)

    def _mask(self, given: Fields) -> None:
        target, null, data, flags = given.text(), given.text(), given.text(), given.word()
        try:
            mode = os.stat(target).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            libc.mount("tmpfs", target, "tmpfs", flags, data)
        else:
            libc.mount(null, target, None, mounts.MS_BIND)

    def _pivot(self, given: Fields) -> None:
        mounts.change_root(given.text())

    def _chdir(self, given: Fields) -> None:
        os.chdir(given.text())

    def _rlimit(self, given: Fields) -> None:
        which, wanted = given.number(), (given.number(), given.number())
        _, ceiling = resource.getrlimit(which)
        soft, hard = (value if ceiling == resource.RLIM_INFINITY else min(value, ceiling) for value in wanted)
        resource.setrlimit(which, (soft, hard))

    def _prctl(self, given: Fields) -> None:
        libc.prctl(*(given.number() for _ in range(5)))

    def _drop_capabilities(self, _given: Fields) -> None:
        capabilities.drop_all()

    def _landlock(self, given: Fields) -> None:
        attributes = (ctypes.c_uint64 * 3)(given.word(), given.word(), given.word())
        self._ruleset = libc.syscall("landlock_create_ruleset", ctypes.byref(attributes), given.number(), 0)

    def _rule(self, path: str, folder: int, file: int) -> None:
        # A path that is not in the tree needs no rule: nothing can be opened there.
        with contextlib.suppress(FileNotFoundError):
            fd = paths.opened(path)
            try:
                block = (ctypes.c_char * 12)()  # struct landlock_path_beneath_attr, packed: u64 access, s32 fd
                is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
                ctypes.c_uint64.from_buffer(block).value = folder if is_folder else file
                ctypes.c_int32.from_buffer(block, 8).value = fd
                libc.syscall("landlock_add_rule", self._ruleset, _RULE_PATH_BENEATH, ctypes.byref(block), 0)
            finally:
                os.close(fd)

    def _landlock_path(self, given: Fields) -> None:
        self._rule(given.text(), given.word(), given.word())

    def _landlock_port(self, given: Fields) -> None:
        block = (ctypes.c_uint64 * 2)(given.word(), given.word())
        libc.syscall("landlock_add_rule", self._ruleset, _RULE_NET_PORT, ctypes.byref(block), 0)

    def _canary(self, given: Fields) -> None:
        root, path, folder, file = given.text(), given.text(), given.word(), given.word()
        placed = _place(root or "/", path)
        if placed and self._ruleset >= 0:
            self._rule(os.path.dirname(path), folder, file)
            self._rule(path, folder, file)
        self.canaries += "1" if placed else "0"

    def _landlock_enforce(self, given: Fields) -> None:
        libc.syscall("landlock_restrict_self", self._ruleset, given.number())
        os.close(self._ruleset)
        self._ruleset = -1

    def _probe(self, _given: Fields) -> None:
        # The root itself is in no rule, and port 1 neither: without Landlock one opens and one is refused otherwise.
        self.root, self.port = _errno_of(_open_root), _errno_of(_connect)

    def _install(self, given: Fields) -> int:
        flags, code = given.number(), given.data()
        block = (ctypes.c_uint64 * 2)(len(code) // 8)  # struct sock_fprog
        program = ctypes.create_string_buffer(code, len(code))
        block[1] = ctypes.addressof(program)
        return libc.syscall("seccomp", _SET_MODE_FILTER, flags, ctypes.byref(block))

    def _seccomp(self, given: Fields) -> None:
        self._install(given)

    def _notify(self, given: Fields) -> None:
        self.held = self._install(given)


def _place(root: str, path: str) -> bool:
    """An empty readable file, on a file system of the sandbox's own: nothing is ever created on the host's disks."""
    folder = existing = os.path.dirname(path)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    if os.stat(existing).st_dev != os.stat(root).st_dev or os.path.lexists(path):
        return False
    os.makedirs(folder, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
    return True
