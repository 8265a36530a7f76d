"""Kill everything that can be signalled.

gain: a dead supervisor, core, gateway or neighbour
attack: T1489
stopped by: pid namespace, Landlock
unconfined: cell
alone: yes
may fall silent: the command it kills first is what started it, and the sandbox ends with its command
also refused by: ESRCH
"""

import os
import signal
import time

from attacker import Refused, each, first


def attempt(world):
    os.kill(-1, signal.SIGKILL)
    time.sleep(0.05)

    def dead(pid):
        try:
            if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX":
                raise Refused(f"process {pid} lives")
        except FileNotFoundError:
            if pid not in world["seen"]:
                raise Refused(f"process {pid} was never to be seen") from None
        return f"process {pid} is dead"

    return first(*each(world["pids"], dead))
