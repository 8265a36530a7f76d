"""Watch, or hold up, opens of others.

gain: what the host does, and a core that waits for it
attack: T1083
stopped by: seccomp, capabilities
unconfined: host
"""

from attacker import call


def attempt(world):
    call("fanotify_init", 0, 0)
    return "made a fanotify group"
