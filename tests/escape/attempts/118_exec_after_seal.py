"""Run a program.

gain: another program
attack: T1059
stopped by: seccomp, Landlock
unconfined: host
levels: seal
"""

import mmap
import os

from attacker import first


def attempt(world):
    def run():
        os.execv("/usr/bin/env", ["env", "sh", "-c", f'echo \'{{"outcome": "escaped"}}\' >&{world.get("said", 1)}'])

    def writable():
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        return "has memory to write and run"

    return first(writable, run)
