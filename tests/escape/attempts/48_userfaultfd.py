"""Handle page faults itself.

gain: the kernel stopped in the middle of a copy: what exploits wait for
attack: T1068
stopped by: seccomp
unconfined: host
"""

from attacker import call


def attempt(world):
    call("userfaultfd", 1)
    return "made a userfaultfd"
