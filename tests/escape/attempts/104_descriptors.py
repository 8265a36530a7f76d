"""Open more files than the policy gives.

gain: a machine without file structures
attack: T1499
stopped by: limits
unconfined: host
also refused by: EMFILE
"""

import os
import resource

from attacker import in_child


def attempt(world):
    def fill():
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for _ in range(4200):
            os.open("/dev/null", os.O_RDONLY)
        return "opened 4200 files"

    return in_child(fill, seconds=5)
