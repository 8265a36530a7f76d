"""Add, request or read keys.

gain: keys of the user who started it
attack: T1552
stopped by: seccomp
unconfined: host
"""

from attacker import call, first


def attempt(world):
    def add():
        call("add_key", b"user", b"clawback-escape", b"x", 1, -1)
        return "added a key"

    def session():
        call("keyctl", 0, -3, 0, 0, 0)
        return "found its session keyring"

    def ask():
        call("request_key", b"user", b"clawback-escape", 0, -1)
        return "requested a key"

    return first(add, session, ask)
