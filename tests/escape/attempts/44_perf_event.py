"""Measure another process, or the kernel.

gain: secrets by their timing
attack: T1082
stopped by: seccomp
unconfined: host
"""

import ctypes
import struct

from attacker import call


def attempt(world):
    attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 128, 0) + bytes(24) + struct.pack("Q", 1 << 5), 128)
    call("perf_event_open", attributes, 0, -1, -1, 0)
    return "opened a performance counter"
