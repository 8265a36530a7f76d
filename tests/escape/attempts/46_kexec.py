"""Boot another kernel.

gain: the machine
attack: T1542
stopped by: seccomp, capabilities
unconfined: host
"""

from attacker import call, first


def attempt(world):
    # Flags and a number of segments that no kernel accepts: a call that gets through is refused for these.
    def load():
        call("kexec_load", 0, 1 << 20, 0, 0x00FF0000)
        return "loaded a kernel"

    def file():
        call("kexec_file_load", -1, -1, 0, 0, 0xFF00)
        return "loaded a kernel file"

    return first(load, file)
