"""Fill the file systems that are in memory.

gain: a machine without memory
attack: T1499
stopped by: tmpfs size
unconfined: cell
also refused by: ENOSPC, EFBIG, ENOENT
"""

import os

from attacker import each, first


def attempt(world):
    def fill(folder):
        path = f"{folder}/fill"
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(fd, 0, 300 << 20)
        finally:
            os.close(fd)
            os.unlink(path)
        return f"300 MiB in {folder}"

    return first(*each(world["memory_folders"], fill))
