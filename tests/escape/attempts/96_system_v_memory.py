"""Attach to shared memory of the host and of another agent.

gain: their data, and a channel
attack: T1559
stopped by: IPC namespace
unconfined: host
also refused by: EINVAL, ENOENT, EIDRM
"""

import ctypes
import os

from attacker import LIBC, each, first


def attempt(world):
    LIBC.shmat.restype = ctypes.c_void_p

    def attach(victim):
        place = LIBC.shmat(victim["segment"], None, 0o10000)
        if place in (None, ctypes.c_void_p(-1).value):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return f"attached: {ctypes.string_at(place, 16)!r}"

    return first(*each([one for one in world["victims"] if "segment" in one], attach))
