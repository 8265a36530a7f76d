"""Go on with a connection that was open before.

gain: an upload that is not cut
attack: T1041
stopped by: destroyed sockets
unconfined: host
levels: isolate
also refused by: ECONNABORTED, ECONNRESET, EPIPE, ENOTCONN, ENETUNREACH, EBADF
"""

import socket

from attacker import Impossible, Refused, each, first

KEPT = {}


def prepare(world):
    for protocol in (0, 262):
        try:
            KEPT[protocol] = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
            KEPT[protocol].settimeout(2)
            KEPT[protocol].connect(tuple(world["gateway"]))
        except OSError:
            KEPT.pop(protocol, None)


def attempt(world):
    if 0 not in KEPT:
        raise Impossible("no connection could be opened before")
    name, port = world["good"]

    def use(protocol):
        request = f"GET http://{name}:{port}/open HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n"
        KEPT[protocol].sendall(request.encode())
        try:
            answer = KEPT[protocol].recv(100)
        except TimeoutError:
            raise Refused("no answer any more") from None
        if not answer:
            raise Refused("closed")
        return f"protocol {protocol} was answered {answer[:20]!r}"

    return first(*each(KEPT, use))
