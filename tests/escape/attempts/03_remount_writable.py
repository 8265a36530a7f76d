"""Remount what is read-only to be written.

gain: changed system files and settings
attack: T1562.001
stopped by: seccomp, capabilities
unconfined: cell
"""

from attacker import call


def attempt(world):
    call("mount", 0, b"/proc", 0, 0x20 | 0x1000 | 0x2 | 0x4 | 0x8, 0)
    return "remounted /proc writable"
