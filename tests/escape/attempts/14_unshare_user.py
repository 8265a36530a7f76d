"""Make a user namespace by unshare.

gain: every capability over namespaces of its own, and the kernel's attack surface behind them
attack: T1611
stopped by: seccomp
unconfined: host
"""

from attacker import call, in_child


def attempt(world):
    def go():
        call("unshare", 0x10000000)
        return "made a user namespace by unshare"

    return in_child(go)
