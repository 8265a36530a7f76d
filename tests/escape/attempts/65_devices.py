"""Open a device of the host.

gain: disks, memory, terminals, virtual machines, networks
attack: T1006
stopped by: private /dev, user namespace
unconfined: host
also refused by: ENOENT, ENXIO, ENODEV
"""

import os

from attacker import each, first

NAMES = (
    "mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "loop-control", "loop0", "fuse", "kvm", "net/tun", "tty0",
    "ptmx", "tty", "vhost-net", "mapper/control", "cpu/0/msr", "hpet", "rtc0", "watchdog", "uinput",
)  # fmt: skip


def attempt(world):
    def look(name):
        os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
        return f"opened /dev/{name}"

    return first(*each([name for name in NAMES if not name.startswith("watchdog")], look))
