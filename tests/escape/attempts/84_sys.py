"""Write under /sys.

gain: a program of its own that the kernel starts as root; its own limits
attack: T1611
stopped by: mount namespace, Landlock
unconfined: host
also refused by: ENOENT
"""

import glob
import os

from attacker import each, first


def attempt(world):
    paths = ["/sys/kernel/uevent_helper", "/sys/power/state", "/sys/fs/cgroup/cgroup.procs", "/sys/kernel/mm/ksm/run"]
    paths += sorted(glob.glob("/sys/fs/cgroup/*/tasks") + glob.glob("/sys/fs/cgroup/*/release_agent"))[:8]

    def look(path):
        os.close(os.open(path, os.O_WRONLY))
        return f"opened {path} to write"

    return first(*each(paths, look))
