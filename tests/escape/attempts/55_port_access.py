"""Ask for the machine's ports.

gain: the hardware
attack: T1542
stopped by: seccomp, capabilities
unconfined: host
needs: x86_64
"""

from attacker import call, first, in_child


def attempt(world):
    def iopl():
        return f"iopl answered {call('iopl', 3)}"

    def ioperm():
        return f"ioperm answered {call('ioperm', 0x80, 1, 1)}"

    return first(lambda: in_child(iopl), lambda: in_child(ioperm))
