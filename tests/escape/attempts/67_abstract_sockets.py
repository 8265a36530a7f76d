"""Connect to abstract Unix sockets of the host and of another agent.

gain: services that trust whoever is local
attack: T1559
stopped by: network namespace, Landlock
unconfined: host
also refused by: ECONNREFUSED
"""

import socket

from attacker import each, first, reach


def attempt(world):
    return first(
        *each(
            [victim["token"] for victim in world["victims"]],
            lambda token: reach(socket.AF_UNIX, socket.SOCK_STREAM, f"\0clawback-{token}", b"hello"),
        )
    )
