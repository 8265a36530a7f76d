"""Have the gateway connect to an address, however it is spelt.

gain: the host's loopback, its network, a cloud's metadata
attack: T1090
stopped by: gateway
unconfined: host
seen from outside: yes
also refused by: ENETUNREACH, ECONNREFUSED, EADDRNOTAVAIL, ECONNRESET, EPIPE
"""

import socket

from attacker import Refused, each, first, line

SPELLINGS = (
    "127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f000001", "017700000001", "127.1", "0x7f.1", "0177.0.0.1",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "0", "0.0.0.0", "[::]", "127.0.0.1.", "localhost.",
    "①②⑦.0.0.1", "127。0。0。1", "good.test%00.evil", "good.test@127.0.0.1", "169.254.169.254", "0xa9fea9fe",
    "[fd00:ec2::254]", "metadata.google.internal", "rebound.test", "REBOUND.test.",
)  # fmt: skip


def ask(world, text):
    with socket.socket() as sock:
        sock.settimeout(3)
        sock.connect(tuple(world["gateway"]))
        sock.sendall(text.encode("utf-8", "surrogateescape"))
        answer = sock.recv(4096)
        if b" 200 " in answer.split(b"\r\n")[0] and text.startswith("CONNECT"):
            sock.sendall(f"GET /{world['token']} HTTP/1.0\r\n\r\n".encode())
            answer = sock.recv(4096)
    if b"sink " in answer:
        return f"reached by {text.split(chr(13))[0]!r}"
    raise Refused(f"{text.split(chr(13))[0]!r}: {line(answer)!r}")


def attempt(world):
    port = world["forbidden"]
    requests = [f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n" for name in SPELLINGS]
    requests += [
        f"GET http://{name}:{port}/{world['token']} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n" for name in SPELLINGS
    ]
    return first(*each(requests, lambda text: ask(world, text)))
