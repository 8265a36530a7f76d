"""Run a command as on a kernel that lacks something: `mask.py NAME COMMAND…`, as root.

System calls are refused by a filter that everything below inherits, as an older kernel, a security module or a
container would refuse them; an older Landlock is played by answering its first call; control groups are taken from a
mount namespace of its own. Nothing of the machine is changed.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path

from clawback.enforcement.kernel import landlock, libc, mounts, notify
from clawback.enforcement.kernel.seccomp import (
    ALLOW,
    ESCALATE,
    Action,
    Check,
    Condition,
    assemble,
    deny,
    install,
)

_MNT_DETACH = 2
_NETLINK = 16
_NEW_LISTENER = 0x8
_VERSION = 1
_ABSENT = deny(errno.ENOSYS)


def _netlink(protocol: int) -> Action:
    wanted = (Condition(0, values=(_NETLINK,)), Condition(2, values=(protocol,)))
    return Check(((wanted, deny(errno.EPROTONOSUPPORT)),), ALLOW)


def _flag(argument: int, flag: int, number: int) -> Action:
    return Check((((Condition(argument, flag),), deny(number)),), ALLOW)


CALLS: dict[str, dict[str, Action]] = {
    "nothing": {},
    "landlock": {"landlock_create_ruleset": deny(errno.EOPNOTSUPP)},
    "mount-api": dict.fromkeys(
        ("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"), _ABSENT
    ),
    "mount-setattr": {"mount_setattr": _ABSENT},
    "clone3": {"clone3": _ABSENT},
    "pidfd": dict.fromkeys(("pidfd_open", "pidfd_getfd", "pidfd_send_signal"), _ABSENT),
    "close-range": {"close_range": _ABSENT},
    "fanotify": {"fanotify_init": _ABSENT},
    "ptrace": {"ptrace": deny()},
    "notify": {"seccomp": _flag(1, _NEW_LISTENER, errno.EINVAL)},
    "user-namespaces": {
        "clone3": _ABSENT,
        "clone": _flag(0, libc.CLONE_NEWUSER, errno.EPERM),
        "unshare": _flag(0, libc.CLONE_NEWUSER, errno.EPERM),
    },
    "audit": {"socket": _netlink(9)},
    "process-events": {"socket": _netlink(11)},
    "sock-diag": {"socket": _netlink(4)},
    "bpf": {"bpf": deny()},
    "perf": {"perf_event_open": deny()},
}
"""Name → what is refused."""

GROUPS = {
    "cgroup-v2": ("cgroup2",),
    "cgroup-v1": ("cgroup",),
    "cgroups": ("cgroup", "cgroup2"),
}
"""Name → the kinds of hierarchies that are taken away."""

ABIS = {f"landlock-{version}": version for version in range(1, 7)}
"""Name → the Landlock that is played."""


def _hide_groups(kinds: tuple[str, ...]) -> None:
    libc.unshare(libc.CLONE_NEWNS)
    mounts.make_private()
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        before, after = line.split(" - ")
        if after.split()[0] in kinds:
            libc.umount2(before.split()[4], _MNT_DETACH)


def _create_ruleset(listener: notify.Listener, held: notify.Held, version: int) -> None:
    """As security/landlock/syscalls.c of that version answers."""
    attributes, size, flags = held.arguments[:3]
    if flags:
        listener.give(held.id, version) if flags == _VERSION else listener.deny(held.id, errno.EINVAL)
        return
    known = landlock.rights(version)
    with notify.Memory(held.tid) as memory:
        words = struct.unpack(f"={size // 8}Q", memory.read(attributes, size))
    if any(words[known.size // 8 :]):
        listener.deny(held.id, errno.E2BIG)
    elif any(word & ~handled for word, handled in zip(words, known.attributes, strict=False)):
        listener.deny(held.id, errno.EINVAL)
    else:
        listener.let_go(held.id)  # who asks is no enemy, and does not change what was read


def _play_abi(version: int) -> None:
    """Return in a child under the filter; this process answers for it until it ends, and ends as it did."""
    actions: dict[str, Action] = {
        "landlock_create_ruleset": ESCALATE,
        "landlock_restrict_self": _flag(1, 0xFFFFFFFF, errno.EINVAL),  # flags came with ABI 7
    }
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        socket.send_fds(theirs, [b"x"], [notify.install(assemble(actions, ALLOW))])
        return
    theirs.close()
    _, (fd, *_), _, _ = socket.recv_fds(ours, 1, 1)
    listener = notify.Listener(fd)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not any(event & select.POLLHUP for _fd, event in poll.poll()):  # until nobody is under the filter
        if held := listener.receive():
            try:
                _create_ruleset(listener, held, version)
            except notify.Vanished:
                continue
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main(name: str, command: list[str]) -> None:
    """Put the mask on and become the command."""
    if name in GROUPS:
        _hide_groups(GROUPS[name])
    elif name in ABIS:
        _play_abi(ABIS[name])
    elif CALLS[name]:
        install(assemble(CALLS[name], ALLOW), log=False)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606 - the command is the test's own


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
