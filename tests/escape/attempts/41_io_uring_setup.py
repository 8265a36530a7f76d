"""Make a ring, whose operations no filter sees.

gain: connects and opens past the sealed filter
attack: T1562
stopped by: seccomp
unconfined: host
"""

import ctypes

from attacker import call


def attempt(world):
    call("io_uring_setup", 4, ctypes.create_string_buffer(248))
    return "made an io_uring"
