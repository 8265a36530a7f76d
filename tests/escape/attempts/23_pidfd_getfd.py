"""Take a descriptor out of another process.

gain: the core's or the gateway's sockets
attack: T1055
stopped by: pid namespace, seccomp, Landlock
unconfined: host
also refused by: ESRCH
"""

from attacker import call, each, first


def attempt(world):
    def take(pid):
        call("pidfd_getfd", call("pidfd_open", pid, 0), 0, 0)
        return f"took descriptor 0 of process {pid}"

    return first(*each(world["pids"], take))
