"""Open shared memory files of the host and of another agent.

gain: their data, and a channel
attack: T1559
stopped by: mount namespace
unconfined: host
also refused by: ENOENT
"""

from attacker import each, first


def attempt(world):
    def look(victim):
        with open(victim["shm"]) as file:
            return f"read {file.read()!r}"

    return first(*each([one for one in world["victims"] if "shm" in one], look))
