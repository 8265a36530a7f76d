"""Kill processes outside by number.

gain: a dead supervisor, core, gateway or neighbour
attack: T1489
stopped by: pid namespace, Landlock
unconfined: host
seen from outside: yes
also refused by: ESRCH
"""

import os
import signal
import time

from attacker import Refused, each, first


def attempt(world):
    def kill(pid):
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            try:
                state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                return f"killed process {pid}"
            if state in "ZX":
                return f"killed process {pid}"
            time.sleep(0.005)
        raise Refused(f"process {pid} took SIGKILL and lives: a namespace's first process is immune from inside")

    return first(*each(world["pids"], kill))
