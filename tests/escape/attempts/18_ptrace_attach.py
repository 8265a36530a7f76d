"""Trace a process outside, or the sandbox's first one.

gain: code that runs with another's rights
attack: T1055.008
stopped by: pid namespace, seccomp, Landlock
unconfined: host
also refused by: ESRCH
"""

from attacker import call, each, first


def attempt(world):
    def seize(pid):
        call("ptrace", 0x4206, pid, 0, 0)
        return f"traces process {pid}"

    return first(*each(world["pids"], seize))
