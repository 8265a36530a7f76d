"""Use more memory than the policy gives.

gain: a machine without memory
attack: T1499
stopped by: memory limit
unconfined: host
alone: yes
needs: memory limit
"""

from attacker import in_child


def attempt(world):
    def fill():
        size = world["most_memory"] + (64 << 20)
        block = bytearray(size)
        for at in range(0, size, 4096):
            block[at] = 1
        return f"holds {size >> 20} MiB"

    return in_child(fill, seconds=15)
