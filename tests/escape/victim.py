"""Something to attack: a process with a secret in its memory and environment, and with every kind of shared object.

Arguments: a token that names its objects and is answered by its sockets. It prints one line of JSON when all is there.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import attacker

token, secret = sys.argv[1], os.environ["VICTIM_SECRET"]
key = int(token[:7], 16) | 1
memory = ctypes.create_string_buffer(secret.encode(), 64)
said: dict[str, object] = {"pid": os.getpid(), "address": ctypes.addressof(memory), "key": key, "token": token}


def answer(listener: socket.socket) -> None:
    while True:
        link, _ = listener.accept()
        with link:
            link.sendall(b"victim " + token.encode())


def tried(name: str, make) -> None:
    try:
        make()
    except (OSError, attacker.Impossible) as error:
        said[name] = f"not there: {error}"


def abstract() -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0clawback-{token}")
    listener.listen()
    threading.Thread(target=answer, args=(listener,), daemon=True).start()


def shared() -> None:
    libc = attacker.LIBC
    libc.shmat.restype = ctypes.c_void_p
    segment = attacker.libc("shmget", key, 4096, 0o1666)
    place = libc.shmat(segment, None, 0)
    ctypes.memmove(place, secret.encode(), len(secret))
    attacker.libc("shmctl", segment, 0, None)  # IPC_RMID: goes with this process, and until then is found by id alone
    said["segment"] = segment


def posix_queue() -> None:
    attributes = ctypes.create_string_buffer(b"".join(n.to_bytes(8, "little") for n in (0, 1, 64, 0, 0, 0, 0, 0)))
    fd = attacker.call("mq_open", f"clawback-{token}".encode(), os.O_CREAT | os.O_RDWR, 0o666, attributes)
    said["mq"] = fd


def shm_file() -> None:
    path = Path("/dev/shm", f"clawback-{token}")
    path.write_text(secret)
    path.chmod(0o666)
    said["shm"] = str(path)


for name, make in (("abstract", abstract), ("sysv", shared), ("mq", posix_queue), ("shm", shm_file)):
    tried(name, make)
print(json.dumps(said), flush=True)

while True:
    signal.pause()
