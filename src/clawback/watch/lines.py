"""Cut a stream of bytes into lines without ever holding more than one line's limit of an endless one."""

from __future__ import annotations

from collections.abc import Iterator

from clawback.model.ocsf import LINE_LIMIT

__all__ = ["Lines"]


class Lines:
    """Fed with bytes, yields whole lines, None for one that was longer than the limit and is dropped.

    consumed   bytes that belong to lines already yielded or dropped: where a reader that restarts should go on
    skipping   amid a line that is too long; what comes up to its newline belongs to it
    """

    __slots__ = ("_keep_empty", "_rest", "consumed", "skipping")

    def __init__(self, *, skipping: bool = False, keep_empty: bool = False) -> None:
        self._rest = b""
        self._keep_empty = keep_empty
        self.consumed = 0
        self.skipping = skipping

    @property
    def unfinished(self) -> int:
        """Bytes of a line that has not ended yet."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that end within this chunk. To be exhausted before the next call."""
        data = self._rest + chunk if self._rest else chunk
        self._rest = b""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self.consumed += end + 1 - start
            if self.skipping:
                self.skipping = False
                yield None
            elif end - start > LINE_LIMIT:
                yield None
            elif end > start or self._keep_empty:  # an empty line is what a writer puts after a torn one
                yield data[start:end]
            start = end + 1
        rest = data[start:] if start else data
        if self.skipping or len(rest) > LINE_LIMIT:
            self.consumed += len(rest)
            self.skipping = True
        else:
            self._rest = rest
