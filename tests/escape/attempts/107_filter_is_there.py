"""Find that no filter is on it.

gain: every system call
attack: T1562
stopped by: seccomp
unconfined: host
"""

from attacker import Refused


def attempt(world):
    mode = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("Seccomp:"))
    if mode == "2":
        raise Refused("seccomp mode 2")
    return f"seccomp mode {mode}"
