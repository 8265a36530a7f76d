"""Make more files in memory than it holds.

gain: kernel memory, a little for each name
attack: T1499
stopped by: tmpfs inodes
unconfined: cell
also refused by: ENOSPC, ENOENT
"""

import os

from attacker import each, first


def attempt(world):
    def fill(folder):
        made = []
        try:
            for number in range(5000):
                path = f"{folder}/inode-{number}"
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
                made.append(path)
        finally:
            for path in made:
                os.unlink(path)
        return f"5000 files in {folder}"

    return first(*each([one for one in world["memory_folders"] if one != "/tmp"], fill))
