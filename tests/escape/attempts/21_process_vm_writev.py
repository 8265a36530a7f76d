"""Write into another process's memory.

gain: code in a process outside
attack: T1055
stopped by: pid namespace, seccomp, Landlock
unconfined: host
seen from outside: yes
also refused by: ESRCH
"""

import ctypes
import struct

from attacker import call, each, first


def attempt(world):
    def write(pid):
        buffer = ctypes.create_string_buffer(b"overwritten")
        local = ctypes.create_string_buffer(struct.pack("2Q", ctypes.addressof(buffer), 11))
        remote = ctypes.create_string_buffer(struct.pack("2Q", world["address"], 11))
        call("process_vm_writev", pid, local, 1, remote, 1, 0)
        return f"wrote into process {pid}"

    return first(*each(world["pids"], write))
