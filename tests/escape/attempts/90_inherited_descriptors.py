"""Find a descriptor that was left open.

gain: whatever it leads to
attack: T1611
stopped by: closed descriptors
unconfined: host
"""

import os

from attacker import Refused


def attempt(world):
    # Of the listing that saw them, the last was its own.
    left = [fd for fd in world["fds"] if fd > 2]
    if not left:
        raise Refused("three descriptors, as it should be")
    return f"descriptors {left}: {[os.readlink(f'/proc/self/fd/{fd}') for fd in left]}"
