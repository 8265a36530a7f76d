"""Mount a file system by the old call.

gain: a tree of its own making over the one it was given
attack: T1611
stopped by: seccomp, capabilities
unconfined: cell
"""

from attacker import call


def attempt(world):
    call("mount", b"none", world["work"].encode(), b"tmpfs", 0, 0)
    return "mounted a tmpfs over its folder"
