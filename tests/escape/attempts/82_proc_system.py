"""Write the kernel's settings under /proc/sys, and its levers beside them.

gain: a program of its own that the kernel starts as root
attack: T1611
stopped by: mount namespace, read-only mounts, user namespace
unconfined: host
also refused by: ENOENT, EINVAL, ENXIO
"""

import os
import stat

from attacker import Refused, each, first

PATHS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug",
    "/proc/sys/vm/overcommit_memory", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/fs/binfmt_misc/register", "/proc/sys/kernel/randomize_va_space", "/proc/sysrq-trigger",
    "/proc/sys/user/max_user_namespaces", "/proc/irq/default_smp_affinity", "/proc/mtrr", "/proc/scsi/scsi",
)  # fmt: skip


def attempt(world):
    # Opened to be written and not written: what opens is a way out.
    def look(path):
        fd = os.open(path, os.O_WRONLY)
        try:
            if stat.S_ISCHR(os.fstat(fd).st_mode):
                raise Refused(f"{path} is the null device")
        finally:
            os.close(fd)
        return f"opened {path} to write"

    return first(*each(PATHS, look))
