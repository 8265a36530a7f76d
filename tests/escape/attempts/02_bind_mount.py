"""Bind-mount a folder of its own over the system's settings.

gain: other users, other libraries for whatever enters the sandbox to look
attack: T1611
stopped by: seccomp, capabilities
unconfined: cell
"""

from attacker import call


def attempt(world):
    call("mount", world["work"].encode(), b"/etc", 0, 0x1000, 0)
    return "bound its folder over /etc"
