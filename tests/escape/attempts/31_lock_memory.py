"""Lock more memory than it may.

gain: memory that the host can never have back
attack: T1499
stopped by: limits
unconfined: host
also refused by: ENOMEM, EAGAIN
"""

import ctypes

from attacker import LIBC, libc


def attempt(world):
    LIBC.mmap.restype = ctypes.c_void_p
    size = 1 << 20
    place = LIBC.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
    libc("mlock", ctypes.c_void_p(place), ctypes.c_size_t(size))
    return "locked a mebibyte"
