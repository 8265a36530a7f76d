"""The reading end of a BPF ring buffer: records in the order in which they were reserved, whole, and none twice.

Format: kernel/bpf/ringbuf.c, as libbpf's ringbuf.c reads it: one page with the reader's position, one with the
writers', then the data twice in a row, so that no record is ever split.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator

from clawback.enforcement.kernel.bpf import Map

__all__ = ["Ring"]

_BUSY = 1 << 31
_DISCARDED = 1 << 30
_HEADER = struct.Struct("=II")
_POSITION = struct.Struct("=Q")


class Ring:
    """`size` is a power of two and a multiple of the page size, in bytes. One reader."""

    def __init__(self, size: int, name: str) -> None:
        self.map = Map("ring", key=0, value=0, entries=size, name=name)
        self._size = size
        page = mmap.PAGESIZE
        try:
            self._own = mmap.mmap(self.map.fd, page)
            self._data = mmap.mmap(self.map.fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        except OSError:
            self.map.close()
            raise
        self._page = page
        # One aligned store: the writers must never see half a position.
        self._consumed = ctypes.c_uint64.from_buffer(self._own)

    def fileno(self) -> int:
        """For `poll`."""
        return self.map.fd

    def read(self, limit: int) -> Iterator[bytes]:
        """What is there now, at most `limit` records; never blocks."""
        at = self._consumed.value
        for _ in range(limit):
            if at >= _POSITION.unpack_from(self._data, 0)[0]:
                return
            place = self._page + at % self._size
            length, _ = _HEADER.unpack_from(self._data, place)
            if length & _BUSY:  # reserved and not yet written: the writer wakes us again
                return
            size = length & ~(_BUSY | _DISCARDED)
            record = b"" if length & _DISCARDED else self._data[place + 8 : place + 8 + size]
            at += (size + 8 + 7) // 8 * 8
            self._consumed.value = at  # after the copy was made
            if record:
                yield record

    def close(self) -> None:
        """Let go."""
        del self._consumed  # the mapping cannot be closed while it is pointed into
        self._own.close()
        self._data.close()
        self.map.close()
