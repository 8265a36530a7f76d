"""Read what /proc tells about the kernel.

gain: its memory, addresses, keys
attack: T1082
stopped by: masks, user namespace
unconfined: host
also refused by: ENOENT, EIO
"""

import os
import stat

from attacker import Refused, each, first

PATHS = (
    "/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/timer_list", "/proc/vmallocinfo", "/proc/sched_debug",
    "/proc/kpagecount", "/proc/kpageflags", "/proc/slabinfo", "/proc/pagetypeinfo",
)  # fmt: skip


def attempt(world):
    def look(path):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if path == "/proc/kmsg":  # reading takes the lines away from whoever keeps them
            masked = stat.S_ISCHR(os.fstat(fd).st_mode)
            os.close(fd)
            if masked:
                raise Refused(f"{path} is the null device")
            return f"opened {path}"
        try:
            data = os.read(fd, 64)
        except BlockingIOError:
            return f"{path} can be read"
        finally:
            os.close(fd)
        if not data:
            raise Refused(f"{path} is empty")
        return f"read {len(data)} bytes of {path}"

    return first(*each(PATHS, look))
