"""Read the kernel's log.

gain: addresses, names and denials of others
attack: T1082
stopped by: seccomp, user namespace
unconfined: host
also refused by: ENOENT
"""

import ctypes
import os

from attacker import call, first


def attempt(world):
    def log():
        buffer = ctypes.create_string_buffer(256)
        return f"read {call('syslog', 3, buffer, 256)} bytes of the log"

    def device():
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
        return "opened /dev/kmsg"

    return first(log, device)
