"""Connect to the gateway.

gain: the way out that it had
attack: T1041
stopped by: withdrawn addresses
unconfined: host
levels: isolate
also refused by: ENETUNREACH, EADDRNOTAVAIL
"""

import socket

from attacker import each, first


def attempt(world):
    def connect(place):
        with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET) as sock:
            sock.settimeout(2)
            sock.connect(tuple(place))
        return f"connected to {place}"

    return first(*each([world["gateway"], ["127.0.0.2", 3128], ["::1", 3128], ["0.0.0.0", 3128]], connect))
