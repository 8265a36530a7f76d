"""Find that no_new_privs is not set.

gain: set-user-id programs
attack: T1548
stopped by: no_new_privs
unconfined: host
"""

from attacker import LIBC, Refused


def attempt(world):
    LIBC.prctl(38, 0, 0, 0, 0)
    found = LIBC.prctl(39, 0, 0, 0, 0)
    if found == -1:
        raise PermissionError(1, "prctl is refused")
    if found == 1:
        raise Refused("no_new_privs is set, and stays so")
    return "no_new_privs is off"
