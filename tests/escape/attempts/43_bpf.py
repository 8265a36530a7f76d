"""Load a BPF map or program.

gain: a look at, and a hand in, the kernel
attack: T1014
stopped by: seccomp, capabilities
unconfined: host
"""

import ctypes
import struct

from attacker import call


def attempt(world):
    attributes = ctypes.create_string_buffer(struct.pack("5I", 2, 4, 8, 1, 0), 128)
    call("bpf", 0, attributes, 128)
    return "made a BPF map"
