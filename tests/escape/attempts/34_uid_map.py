"""Map its user to root.

gain: root over files that it may write
attack: T1548
stopped by: seccomp, user namespace
unconfined: host
also refused by: EINVAL
"""

import os

from attacker import call, in_child


def attempt(world):
    def go():
        try:
            call("unshare", 0x10000000)
        except OSError:
            pass
        fd = os.open("/proc/self/uid_map", os.O_WRONLY)
        os.write(fd, b"0 0 1")
        return "wrote its own uid_map"

    return in_child(go)
