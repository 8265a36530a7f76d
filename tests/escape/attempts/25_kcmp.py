"""Compare kernel objects of two processes.

gain: addresses in the kernel, bit by bit
attack: T1082
stopped by: pid namespace, seccomp, Landlock
unconfined: host
also refused by: ESRCH
"""

import os

from attacker import call, each, first


def attempt(world):
    def compare(pid):
        return f"compared with process {pid}: {call('kcmp', os.getpid(), pid, 1, 0, 0)}"

    return first(*each(world["pids"], compare))
