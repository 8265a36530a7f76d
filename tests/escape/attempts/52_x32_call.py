"""Call by the x32 numbers.

gain: every call, past a filter that knows the usual numbers alone
attack: T1562
stopped by: seccomp
unconfined: host
needs: x86_64
"""

import ctypes
import os

from attacker import LIBC


def attempt(world):
    result = LIBC.syscall(ctypes.c_long(0x40000000 + 39))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return f"getpid by x32: {result}"
