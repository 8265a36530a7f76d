"""Connect by another protocol than the one that Landlock's ports are about.

gain: ports that are not the gateway's
attack: T1095
stopped by: seccomp
unconfined: host
also refused by: ESOCKTNOSUPPORT, EPROTONOSUPPORT
"""

import socket

from attacker import each, first


def attempt(world):
    def make(protocol):
        # MPTCP and SCTP are streams too; UDP-Lite and DCCP are not looked at by the rule for TCP either.
        kind = {136: socket.SOCK_DGRAM, 33: 6}.get(protocol, socket.SOCK_STREAM)
        with socket.socket(socket.AF_INET, kind, protocol) as sock:
            sock.setblocking(False)
            code = sock.connect_ex(("127.0.0.1", 9))
        if code == 13:
            raise OSError(code, f"connect by protocol {protocol}")
        return f"connect by protocol {protocol} went out: errno {code}"

    return first(*each((262, 132, 136, 33), make))
