"""Make a user namespace by clone.

gain: every capability over namespaces of its own
attack: T1611
stopped by: seccomp
unconfined: host
"""

import os
import signal

from attacker import call


def attempt(world):
    child = call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made a user namespace by clone"
