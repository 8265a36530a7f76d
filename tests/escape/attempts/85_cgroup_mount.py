"""Mount the control groups and leave its own.

gain: no freezing, no limits; by release_agent, a program that the host starts as root
attack: T1611
stopped by: seccomp, capabilities, cgroup namespace
unconfined: cell
also refused by: EBUSY
"""

from attacker import call, each, first


def attempt(world):
    def mount(kind):
        call("mount", b"cgroup", world["work"].encode(), kind.encode(), 0, 0 if kind == "cgroup2" else b"none,name=esc")
        return f"mounted {kind}"

    return first(*each(("cgroup2", "cgroup"), mount))
