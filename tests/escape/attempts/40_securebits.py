"""Change the security bits.

gain: capabilities that stay across a change of user
attack: T1548
stopped by: capabilities
unconfined: host
"""

from attacker import in_child, libc


def attempt(world):
    def go():
        libc("prctl", 28, 1, 0, 0, 0)
        return "set SECBIT_NOROOT"

    return in_child(go)
