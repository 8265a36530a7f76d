"""List the mounts of the host by statmount and listmount.

gain: where the host keeps what
attack: T1082
stopped by: seccomp
unconfined: host
"""

import ctypes
import struct

from attacker import call


def attempt(world):
    request = ctypes.create_string_buffer(struct.pack("IIQQQ", 32, 0, 0xFFFFFFFFFFFFFFFF, 0, 0))
    found = ctypes.create_string_buffer(8 * 64)
    number = call("listmount", request, found, 64, 0)
    return f"listed {number} mounts"
