"""Have the gateway talk to its own interface, the core's, or itself.

gain: policies of its choice
attack: T1090
stopped by: gateway
unconfined: host
also refused by: ENETUNREACH, ECONNREFUSED, EADDRNOTAVAIL, ECONNRESET, EPIPE
"""

import socket

from attacker import Refused, each, first

TARGETS = (
    "GET /policies", "GET /healthz", "GET /metrics", "GET /agents", "PUT /policies/escape", "OPTIONS *",
    "GET http://localhost:3128/policies", "GET http://127.0.0.1:3128/", "CONNECT 127.0.0.1:3128",
    "GET unix:///run/gateway.sock", "GET http+unix://gateway.sock/policies", "GET file:///etc/passwd",
    "GET ftp://localhost/", "PRI *",
)  # fmt: skip


def attempt(world):
    def ask(order):
        with socket.socket() as sock:
            sock.settimeout(3)
            sock.connect(tuple(world["gateway"]))
            sock.sendall(f"{order} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
            answer = sock.recv(4096).split(b"\r\n")[0]
        if answer.split(b" ")[1:2] == [b"200"]:
            return f"{order}: {answer!r}"
        raise Refused(f"{order}: {answer!r}")

    return first(*each(TARGETS, ask))
