"""Put a supervisor of its own over system calls.

gain: calls that succeed without happening, in the place of the core's supervisor
attack: T1562
stopped by: seccomp
unconfined: host
"""

import ctypes
import struct

from attacker import LIBC, call, in_child


def attempt(world):
    def go():
        LIBC.prctl(38, 1, 0, 0, 0)
        program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
        block = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(program)))
        call("seccomp", 1, 8, block)
        return "has a listener"

    return in_child(go)
