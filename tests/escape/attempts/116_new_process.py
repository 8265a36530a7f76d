"""Start a process, a thread or a program.

gain: something that was not there when it was contained
attack: T1106
stopped by: pids limit, seccomp
unconfined: host
levels: restrict, seal
also refused by: EAGAIN
rootless: open at restrict: without a cgroup there is no limit that release could raise again
"""

import os
import threading

from attacker import first


def attempt(world):
    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return "forked"

    def thread():
        try:
            threading.Thread(target=int).start()
        except RuntimeError as error:
            raise PermissionError(1, str(error)) from None
        return "started a thread"

    return first(fork, thread)
