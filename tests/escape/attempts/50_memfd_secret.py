"""Make memory that not even the kernel can read.

gain: memory that no evidence shows
attack: T1564
stopped by: seccomp
unconfined: host
"""

from attacker import call


def attempt(world):
    call("memfd_secret", 0)
    return "made secret memory"
