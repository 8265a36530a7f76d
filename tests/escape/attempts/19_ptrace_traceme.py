"""Be traced by a parent of its own making.

gain: a tracer that the core cannot put itself in the place of
attack: T1622
stopped by: seccomp
unconfined: host
"""

from attacker import call, in_child


def attempt(world):
    def traced():
        call("ptrace", 0, 0, 0, 0)
        return "a child is traced by its parent"

    return in_child(traced)
