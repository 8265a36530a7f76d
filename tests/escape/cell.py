"""A disposable place with every capability and no filter: namespaces of its own, and in them what is to be attacked.

Arguments: an attempt's file, a JSON world. Prints the attempt's outcome. Whatever the attempt does ends with the cell.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import attacker
from attacker import call

EVERY = 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000 | 0x2000000


def inside(path: Path, world: dict) -> None:
    call("mount", 0, b"/", 0, 0x4000 | 0x40000, 0)
    work = f"{world['work']}/cell"
    os.mkdir(work)
    call("mount", b"tmpfs", work.encode(), b"tmpfs", 0, 0)
    call("mount", b"proc", b"/proc", b"proc", 0, 0)
    os.chdir(work)
    environment = {**os.environ, "VICTIM_SECRET": "the cell's"}
    with subprocess.Popen(
        [sys.executable, str(HERE / "victim.py"), "0123456789ab"], env=environment, stdout=subprocess.PIPE
    ) as victim:
        assert victim.stdout
        said = json.loads(victim.stdout.readline())
        world |= {"work": work, "pids": [victim.pid], "seen": [victim.pid], "address": said["address"]}
        world |= {"memory_folders": [work]}
        # A child: the first process of a namespace is spared by signals, and must be left to tell.
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, json.dumps(attacker.run(path, world)).encode())
            os._exit(0)
        os.close(write)
        print(os.read(read, 65536).decode(), flush=True)
        os._exit(0)


def main() -> None:
    path, world = Path(sys.argv[1]), json.loads(sys.argv[2])
    user, group = os.getuid(), os.getgid()
    call("unshare", EVERY)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
        inside(path, world)
    os.waitpid(child, 0)


main()
