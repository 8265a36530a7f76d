"""Make raw and packet sockets.

gain: packets of any kind, and a look at others'
attack: T1040
stopped by: seccomp, capabilities
unconfined: host
"""

import socket

from attacker import each, first


def attempt(world):
    def make(kind):
        socket.socket(*kind).close()
        return f"made a socket {kind}"

    return first(*each(((17, 3, 0x300), (17, 2, 0x300), (2, 3, 255), (10, 3, 58), (2, 10, 0)), make))
