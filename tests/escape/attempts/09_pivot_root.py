"""Pivot to another root.

gain: a tree without the sandbox's mounts
attack: T1611
stopped by: seccomp, capabilities
unconfined: cell
"""

import os

from attacker import call


def attempt(world):
    os.chdir(world["work"])
    call("pivot_root", b".", b".")
    return "pivoted to its own folder"
