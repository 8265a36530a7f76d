"""Load or unload a kernel module.

gain: the kernel
attack: T1547.006
stopped by: seccomp, capabilities
unconfined: host
"""

from attacker import call, first


def attempt(world):
    # Without an image, by a bad descriptor, by a name that no module has.
    return first(
        lambda: f"loaded: {call('init_module', 0, 0, b'')}",
        lambda: f"loaded: {call('finit_module', -1, b'', 0)}",
        lambda: f"unloaded: {call('delete_module', b'clawback_no_such_module', 0o4000)}",
    )
