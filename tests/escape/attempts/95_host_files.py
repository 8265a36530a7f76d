"""Read and write files of the host that everybody may.

gain: the host's files
attack: T1005
stopped by: mount namespace, Landlock
unconfined: host
also refused by: ENOENT
"""

from attacker import each, first


def attempt(world):
    def read(path):
        with open(path) as file:
            return f"read {path}: {file.read(80)!r}"

    def write(path):
        with open(path, "a") as file:
            file.write("escaped")
        return f"wrote {path}"

    return first(
        *each([world["host_file"], world["host_secret"], *world["neighbour_files"]], read),
        *each([world["host_file"], *world["neighbour_files"]], write),
    )
