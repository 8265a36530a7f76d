"""Start more processes than the policy gives.

gain: a machine without process numbers
attack: T1499
stopped by: pids limit, RLIMIT_NPROC
unconfined: cell
alone: yes
also refused by: EAGAIN
"""

import os
import signal
import time

from attacker import Refused


def attempt(world):
    # Children of its own group, ended by it at the end, however many there are.
    started = []
    try:
        while len(started) < world["most_processes"] + 50:
            child = os.fork()
            if child == 0:
                time.sleep(20)
                os._exit(0)
            started.append(child)
    except OSError as error:
        raise Refused(f"{len(started)} processes, then {error.strerror}") from None
    finally:
        for child in started:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return f"started {len(started)} processes"
