"""Clear the read-only flag of a mount.

gain: a writable system
attack: T1562.001
stopped by: seccomp, capabilities
unconfined: cell
"""

import ctypes
import struct

from attacker import call


def attempt(world):
    attributes = ctypes.create_string_buffer(struct.pack("4Q", 0, 1, 0, 0))
    call("mount_setattr", -100, b"/proc", 0, attributes, 32)
    return "cleared MOUNT_ATTR_RDONLY of /proc"
