"""Listen for others.

gain: a way in
attack: T1571
stopped by: Landlock, network namespace
unconfined: host
also refused by: EADDRNOTAVAIL
"""

import socket


def attempt(world):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        return f"listens on {sock.getsockname()}"
