"""Run a program that is in no file.

gain: tools that leave no trace and are in no allow-list
attack: T1620
stopped by: seccomp
unconfined: host
"""

import os

from attacker import call


def attempt(world):
    fd = call("memfd_create", b"tool", 0)
    with open("/bin/true", "rb") as program:
        os.write(fd, program.read())

    def go():
        os.execve(fd, ["true"], {})
        return "never here"

    child = os.fork()
    if child == 0:
        try:
            os.execve(fd, ["true"], {})
        finally:
            os._exit(1)
    return f"ran a memfd: status {os.waitpid(child, 0)[1]}"
