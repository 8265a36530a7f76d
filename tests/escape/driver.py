"""The agent: one child for each attempt, ready before quarantine, each waiting for its own word to begin.

Runs inside the sandbox. Arguments: the folder of attempts, the world's file, then the attempts' names. A child's FIFOs
in the agent's folder, NAME.go and NAME.said, are opened by it in advance: no level takes back an open descriptor.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
FDS = sorted(int(name) for name in os.listdir("/proc/self/fd"))  # before anything is opened, but the listing's own

import attacker


def child(path: Path, work: Path, world: dict) -> None:
    go = os.open(work / f"{path.stem}.go", os.O_RDONLY)
    said = os.open(work / f"{path.stem}.said", os.O_WRONLY)

    def ready() -> None:
        os.write(said, b"ready\n")
        os.read(go, 1)

    os.write(said, json.dumps(attacker.run(path, world, ready)).encode() + b"\n")


def main() -> None:
    folder, where, *names = sys.argv[1:]
    world = json.loads(Path(where).read_text())
    world["fds"] = [fd for fd in FDS if os.path.exists(f"/proc/self/fd/{fd}")]
    for name in names:
        if os.fork() == 0:
            os.setpgid(0, 0)
            try:
                child(Path(folder, f"{name}.py"), Path(world["work"]), world)
            except BaseException as error:
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
            finally:
                os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        with contextlib.suppress(ChildProcessError):
            os.wait()
            continue
        signal.pause()


main()
