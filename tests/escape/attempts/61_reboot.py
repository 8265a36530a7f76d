"""Reboot.

gain: the end of every agent, and of what holds them
attack: T1529
stopped by: seccomp, capabilities
unconfined: host
"""

from attacker import call


def attempt(world):
    # Magic numbers that no kernel accepts.
    call("reboot", 0, 0, 0, 0)
    return "the kernel took the call"
