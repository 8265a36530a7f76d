"""Run before everything else on the machine.

gain: a core that never gets to freeze it
attack: T1499
stopped by: capabilities, limits
unconfined: host
"""

import os

from attacker import first, in_child


def attempt(world):
    def fifo():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return "ran as SCHED_FIFO"

    def nice():
        os.setpriority(os.PRIO_PROCESS, 0, -5)
        return "raised its priority"

    return first(lambda: in_child(fifo), lambda: in_child(nice))
