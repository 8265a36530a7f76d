"""Write another process's memory through /proc/PID/mem.

gain: code in a process outside, or in the sandbox's first process
attack: T1055
stopped by: pid namespace, ptrace check, Landlock
unconfined: host
seen from outside: yes
also refused by: ENOENT
"""

import os

from attacker import each, first


def attempt(world):
    def write(pid):
        fd = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        os.pwrite(fd, b"scribbled over", world["address"])
        return f"wrote into process {pid}"

    return first(*each(world["pids"], write))
