"""Set the clock.

gain: holds that end early, logs that lie
attack: T1070.006
stopped by: seccomp, capabilities
unconfined: host
"""

import ctypes
import struct

from attacker import call, first, timespec


def attempt(world):
    # Nanoseconds, microseconds and a mode that are out of range: a call that gets through is refused for these.
    return first(
        lambda: f"clock_settime: {call('clock_settime', 0, timespec(1, 2_000_000_000))}",
        lambda: f"settimeofday: {call('settimeofday', timespec(1, 2_000_000_000), 0)}",
        lambda: f"clock_adjtime: {call('clock_adjtime', 99, ctypes.create_string_buffer(208))}",
        lambda: f"adjtimex: {call('adjtimex', ctypes.create_string_buffer(struct.pack('I', 0x4000), 208))}",
    )
