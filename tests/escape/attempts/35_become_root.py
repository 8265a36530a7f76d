"""Become root by setresuid.

gain: root's files
attack: T1548
stopped by: user namespace, capabilities
unconfined: host
also refused by: EINVAL
"""

import os


def attempt(world):
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return "became user and group 0"
