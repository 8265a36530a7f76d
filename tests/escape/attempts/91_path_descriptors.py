"""Climb out by a descriptor that needed no permission.

gain: the host's files
attack: T1083
stopped by: mount namespace, Landlock
unconfined: host
also refused by: ENOENT
"""

import os

from attacker import each, first


def attempt(world):
    def climb(start):
        place = os.open(start, os.O_PATH)
        fd = os.open("../" * 40 + world["host_file"].lstrip("/"), os.O_RDONLY, dir_fd=place)
        return f"read {os.read(fd, 20)!r} from {start}"

    return first(*each(("/", ".", world["work"], "/proc/self/root", "/proc/self/cwd", "/tmp"), climb))
