"""Use a ring that another made.

gain: connects and opens past the sealed filter
attack: T1562
stopped by: seccomp
unconfined: host
"""

from attacker import call, first


def attempt(world):
    def enter():
        call("io_uring_enter", 0, 1, 0, 0, 0, 0)
        return "entered a ring"

    def register():
        call("io_uring_register", 0, 0, 0, 0)
        return "registered with a ring"

    return first(enter, register)
