"""Be denied so often that nobody sees anything else.

gain: other agents' events lost, the core without memory
attack: T1499
stopped by: bounded telemetry
unconfined: none: judged by the core's answers and the length of its telemetry
alone: yes
"""

import ctypes

from attacker import LIBC, NUMBER, Refused


def attempt(world):
    number, zero = ctypes.c_long(NUMBER["mount"]), ctypes.c_long(0)
    for _ in range(30_000):
        LIBC.syscall(number, zero, zero, zero, zero, zero)
    raise Refused("denied 30,000 times; what that did is seen outside")
