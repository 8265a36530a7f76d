"""Reach the host's files by links in a folder of its own.

gain: the host's files
attack: T1083
stopped by: mount namespace, Landlock
unconfined: host
also refused by: ENOENT, EXDEV, ELOOP
"""

import os

from attacker import first


def attempt(world):
    def symbolic():
        path = f"{world['work']}/symbolic"
        os.symlink(world["host_file"], path)
        try:
            return f"read {open(path).read()[:20]!r} by a symbolic link"
        finally:
            os.unlink(path)

    def hard():
        path = f"{world['work']}/hard"
        os.link(world["host_file"], path)
        try:
            return f"read {open(path).read()[:20]!r} by a hard link"
        finally:
            os.unlink(path)

    return first(symbolic, hard)
