"""Run a program that belongs to root and is set-user-id.

gain: root
attack: T1548.001
stopped by: no_new_privs, mount flags, user namespace
unconfined: user
also refused by: EAGAIN
"""

import os
import shutil
import subprocess
import time

from attacker import Impossible, Refused


def attempt(world):
    program = next((found for name in ("su", "passwd", "newgrp") if (found := shutil.which(name))), None)
    if program is None or not os.stat(program).st_mode & 0o4000:
        raise Impossible("no set-user-id program here")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        # That it was executed is told a moment before it has its new user.
        end = time.monotonic() + 1
        effective = os.geteuid()
        while effective == os.geteuid() and time.monotonic() < end:
            lines = open(f"/proc/{child.pid}/status").read().splitlines()
            effective = int(next(line.split()[2] for line in lines if line.startswith("Uid:")))
        child.kill()
    if effective == os.geteuid():
        raise Refused(f"{program} ran as user {effective}")
    return f"{program} ran as user {effective}"
