"""Change swapping, quotas or accounting.

gain: the host's files, or its end
attack: T1499
stopped by: seccomp, capabilities
unconfined: host
"""

from attacker import call, first


def attempt(world):
    # None of the named files exists: a call that gets through says so.
    return first(
        lambda: f"swapon: {call('swapon', b'/nonexistent/clawback', 0)}",
        lambda: f"acct: {call('acct', b'/nonexistent/clawback')}",
        lambda: f"quotactl: {call('quotactl', 0x80000100, b'/nonexistent/clawback', 0, 0)}",
    )
