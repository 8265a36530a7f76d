"""Give a program of its own capabilities.

gain: capabilities at the next exec
attack: T1548
stopped by: capabilities, Landlock
unconfined: cell
"""

import os
import struct


def attempt(world):
    path = f"{world['work']}/capable"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 21, 0, 0, 0))
    return "put CAP_SYS_ADMIN on a file"
