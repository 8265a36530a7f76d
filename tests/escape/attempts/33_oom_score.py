"""Be the last that the kernel kills for want of memory.

gain: the core is killed in its place
attack: T1499
stopped by: capabilities
unconfined: host
unconfined needs: CAP_SYS_RESOURCE
"""

import os

from attacker import in_child


def attempt(world):
    def lower():
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, b"-1000")
        return "lowered its own oom_score_adj"

    return in_child(lower)
