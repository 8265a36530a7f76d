"""Make a device node.

gain: disks and memory
attack: T1611
stopped by: seccomp, user namespace, mount flags
unconfined: host
"""

import os


def attempt(world):
    path = f"{world['work']}/node"
    os.mknod(path, 0o20666, os.makedev(1, 1))
    os.unlink(path)
    return "made a node of /dev/mem's number"
