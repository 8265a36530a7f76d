"""Change the network, or ask for what is not its business, by netlink.

gain: an interface, an address, sockets of others, audit records
attack: T1562.004
stopped by: seccomp, capabilities
unconfined: cell
"""

import socket
import struct

from attacker import each, first


def attempt(world):
    def other(protocol):
        socket.socket(16, 3, protocol).close()
        return f"made a netlink socket of protocol {protocol}"

    def change():
        # RTM_NEWLINK: a dummy interface, acknowledged.
        attribute = struct.pack("HH4s", 8, 3, b"esc\0")
        kind = struct.pack("HH", 10, 1) + b"dummy\0" + b"\0\0"
        info = struct.pack("HH", 4 + len(kind), 18) + kind
        body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + attribute + info
        message = struct.pack("IHHII", 16 + len(body), 16, 0x1 | 0x4 | 0x400, 1, 0) + body
        with socket.socket(16, 3, 0) as sock:
            sock.settimeout(1)
            sock.send(message)
            code = -struct.unpack_from("i", sock.recv(4096), 16)[0]
        if code:
            raise OSError(code, "RTM_NEWLINK")
        return "made an interface"

    return first(change, *each((4, 9, 12, 15, 16, 11), other))
