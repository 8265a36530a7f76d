"""Make a socket of any other family.

gain: parts of the kernel that hardly anybody looks at, and a neighbour virtual machine
attack: T1095
stopped by: seccomp
unconfined: host
also refused by: EAFNOSUPPORT, ESOCKTNOSUPPORT, EPROTONOSUPPORT
"""

import socket

from attacker import each, first

# vsock, alg, bluetooth, can, xdp, tipc, key, kcm, rds, smc, nfc, qipcrtr, and all the rest below 46.
FAMILIES = [40, 38, 31, 29, 44, 30, 15, 41, 21, 43, 39, 42, *(n for n in range(3, 46) if n not in {10, 16, 17})]


def attempt(world):
    def make(family):
        for kind in (1, 2, 3, 5):
            try:
                socket.socket(family, kind, 0).close()
            except OSError as error:
                failure = error
                if error.errno in (1, 13):
                    break
            else:
                return f"made a socket of family {family}, type {kind}"
        raise failure

    return first(*each(FAMILIES, make))
