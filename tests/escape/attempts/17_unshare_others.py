"""Make any other namespace.

gain: mounts, networks and process ids of its own, unseen by the core
attack: T1611
stopped by: seccomp, capabilities
unconfined: host
"""

from attacker import call, each, first, in_child

FLAGS = {
    "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "pid": 0x20000000, "net": 0x40000000,
    "time": 0x80,
}  # fmt: skip


def attempt(world):
    def go(kind):
        def unshare():
            call("unshare", FLAGS[kind])
            return f"made a {kind} namespace"

        return in_child(unshare)

    return first(*each(FLAGS, go))
