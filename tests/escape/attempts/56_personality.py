"""Choose a personality that weakens memory protection.

gain: addresses that are known, data that runs
attack: T1055
stopped by: seccomp
unconfined: host
"""

from attacker import call, each, first, in_child


def attempt(world):
    def choose(flag):
        return in_child(lambda: f"personality {flag:#x}: was {call('personality', flag)}")

    return first(*each((0x0400000, 0x0040000, 0x0400000 | 0x0040000), choose))
