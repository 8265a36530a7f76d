"""Rename the host.

gain: logs and tickets that name another machine
attack: T1036
stopped by: seccomp, capabilities, UTS namespace
unconfined: cell
"""

from attacker import call, first


def attempt(world):
    return first(
        lambda: f"sethostname: {call('sethostname', b'escaped', 7)}",
        lambda: f"setdomainname: {call('setdomainname', b'escaped', 7)}",
    )
