"""Send ICMP echoes that carry data.

gain: a way out for data
attack: T1095
stopped by: seccomp, capabilities, network namespace
unconfined: host
also refused by: ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL
"""

import socket
import struct

from attacker import each, first


def echo(data):
    body = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(body) // 2}H", body))
    total = (total & 0xFFFF) + (total >> 16)
    return body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]


def attempt(world):
    def ping(kind):
        with socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP) as sock:
            sock.settimeout(1)
            sock.sendto(echo(world["token"].encode()), ("127.0.0.1", 0))
            return f"an echo came back: {len(sock.recv(1000))} bytes"

    return first(*each((socket.SOCK_DGRAM, socket.SOCK_RAW), ping))
