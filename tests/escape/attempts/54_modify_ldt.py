"""Write segment descriptors.

gain: 16-bit code, and a corner of the kernel that has often been broken
attack: T1068
stopped by: seccomp
unconfined: host
needs: x86_64
"""

import ctypes

from attacker import call


def attempt(world):
    return f"read {call('modify_ldt', 0, ctypes.create_string_buffer(64), 64)} bytes of its LDT"
