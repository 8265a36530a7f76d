"""Write system files.

gain: programs, users and libraries for whatever runs inside
attack: T1574.006
stopped by: read-only mounts, Landlock
unconfined: host
also refused by: ENOENT
"""

import os

from attacker import each, first


def attempt(world):
    def write(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        return f"opened {path} to write"

    return first(*each(world["system"], write))
