"""Leave its parents, session and group behind.

gain: a process that nobody counts among the agent's
attack: T1564
stopped by: pid namespace, cgroup
unconfined: none: judged by where its processes are found
"""

import os
import time

from attacker import Refused, in_child


def attempt(world):
    def daemon():
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(0.02)
                os.write(
                    write, f"{os.getppid()} {open('/proc/self/cgroup').read().split()[-1].rpartition(':')[2]}".encode()
                )
                os._exit(0)
            os._exit(0)
        os.wait()
        parent, _, group = os.read(read, 4096).decode().partition(" ")
        # Inside, the namespace's first process takes orphans, and the group is the root of what is shown.
        if int(parent) == 1 and group in ("/", "/.."):
            raise Refused("an orphan went to the sandbox's first process and stayed in the group")
        return f"an orphan went to process {parent}, in group {group}"

    return in_child(daemon)
