"""Print without end.

gain: a host without disk
attack: T1499
stopped by: bounded output
unconfined: none: judged by the length of what the shim keeps
"""

import os

from attacker import Refused


def attempt(world):
    block = b"x" * 65535 + b"\n"
    for _ in range(64):
        os.write(1, block)
    raise Refused("printed 4 MiB; how much was kept is seen outside")
