"""Take over whoever comes inside to look.

gain: a process with rights that the agent has not
attack: T1055
stopped by: ptrace check, Landlock, user namespace
unconfined: none: there is no helper to meet outside
host does: look from inside
also refused by: ENOENT, ESRCH
"""

import os
import time

from attacker import Refused


def attempt(world):
    end = time.monotonic() + 1.0
    known = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    met = set()
    while time.monotonic() < end:
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in known:
                continue
            met.add(name)
            for what, flags in (("mem", os.O_RDWR), ("environ", os.O_RDONLY), ("maps", os.O_RDONLY)):
                try:
                    fd = os.open(f"/proc/{name}/{what}", flags)
                    os.close(fd)
                except OSError:
                    continue
                # A process that is just ending has no memory left: what opens then leads nowhere.
                try:
                    text = open(f"/proc/{name}/maps").read()
                except OSError:
                    continue
                if text:
                    return f"opened /proc/{name}/{what} of a process that came inside"
            for what in ("root", "cwd", "exe"):
                try:
                    found = os.readlink(f"/proc/{name}/{what}")
                except OSError:
                    continue
                return f"followed /proc/{name}/{what} to {found}"
    raise Refused(f"met {len(met)} processes and opened none")
