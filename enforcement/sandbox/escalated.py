"""The shim's part in escalation: keeps the filter's listener, and refuses every held call while nobody supervises.

The supervisor gets copies of the listener and of the ledger, one page of memory in which it notes each call that it has
taken and not answered yet. Should it die, those threads would wait for ever for an answer that nobody else can give:
the shim reads their ids there and refuses them.
"""

from __future__ import annotations

import mmap
import os
import select
import socket

from clawback.enforcement.kernel.notify import Listener, Vanished
from clawback.enforcement.sandbox import wire

__all__ = ["SLOTS", "Escalation", "Ledger"]

SLOTS = 64
"""How many calls of one agent a supervisor may have in hand."""

_LAST, _REFUSED, _FIRST = 0, 1, 8  # words of 64 bits, in the machine's order
_AHEAD = 4096
"""How far past the last id noted one may be that was taken and not noted: ids count up, and calls that a signal
interrupted before anybody took them leave gaps."""


class Ledger:
    """The page, as eight-byte words: 0 the last id taken, 1 how many calls the shim refused alone, 8 to 71 ids in hand,
    0 where there is none. Each change is one store.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, mmap.PAGESIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._free = list(range(_FIRST, _FIRST + SLOTS))
        self._slot: dict[int, int] = {}

    @classmethod
    def make(cls) -> Ledger:
        """A new one."""
        fd = os.memfd_create("clawback-ledger", os.MFD_CLOEXEC)
        os.ftruncate(fd, mmap.PAGESIZE)
        return cls(fd)

    def take(self, id_: int) -> bool:
        """Note a call as in hand; False where there is no room, and the last id is noted all the same."""
        if not self._free:
            self._words[_LAST] = id_
            return False
        slot = self._free.pop()
        self._words[slot] = id_  # before the last id moves past it: dying in between loses nothing
        self._words[_LAST] = id_
        self._slot[id_] = slot
        return True

    def answered(self, id_: int) -> None:
        """It is no longer in hand."""
        slot = self._slot.pop(id_, None)
        if slot is not None:
            self._words[slot] = 0
            self._free.append(slot)

    def left(self) -> tuple[int, list[int]]:
        """(the last id taken, ids in hand); clears the latter. For the shim, when the supervisor is gone."""
        found = []
        for slot in range(_FIRST, _FIRST + SLOTS):
            if self._words[slot]:
                found.append(self._words[slot])
                self._words[slot] = 0
        return self._words[_LAST], found

    def refused_alone(self, more: int = 0) -> int:
        """How many calls the shim refused alone so far, `more` added now."""
        if more:
            self._words[_REFUSED] += more
        return self._words[_REFUSED]

    def close(self) -> None:
        """Let go of the page and its descriptor."""
        self._words.release()
        self._memory.close()
        os.close(self.fd)


class Escalation:
    """Takes over the listener's descriptor. `fds` are to be polled for reading, and `ready` called with what is."""

    def __init__(self, fd: int) -> None:
        self._listener = Listener(fd)
        self._ledger = Ledger.make()
        self._supervisor: socket.socket | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """The supervisor's connection while there is one, else the listener."""
        return ((self._supervisor or self._listener).fileno(),)

    def attach(self, peer: socket.socket) -> None:
        """Hand copies to this peer, which supervises for as long as it keeps the connection; takes over `peer`."""
        self._leave()
        try:
            wire.send(peer, {"escalates": True}, [self._listener.fd, self._ledger.fd])
        except OSError:
            peer.close()
            return
        self._supervisor = peer

    def ready(self, fd: int) -> bool:
        """Serve one of `fds`; False once no thread is under the filter any more."""
        if self._supervisor is not None:
            if fd == self._supervisor.fileno():
                self._leave()  # it never speaks: this is its end
            return True
        events = select.poll()
        events.register(self._listener, select.POLLIN)
        found = events.poll(0)
        if not found:
            return True
        if not found[0][1] & select.POLLIN:
            return False
        held = self._listener.receive()
        if held is not None and self._refuse(held.id):
            self._ledger.refused_alone(1)
        return True

    def close(self) -> None:
        """Nobody is left to ask."""
        if self._supervisor is not None:
            self._supervisor.close()
        os.close(self._listener.fd)
        self._ledger.close()

    def _leave(self) -> None:
        """The supervisor is gone: whatever it had in hand is refused."""
        if self._supervisor is None:
            return
        self._supervisor.close()
        self._supervisor = None
        last, ids = self._ledger.left()
        count = sum(self._refuse(id_) for id_ in ids)
        # It may have died between taking a call and noting it. That one is the oldest after the last noted: the first
        # that can be refused is it, and one that nobody has taken says so by EINPROGRESS.
        for id_ in range(last + 1, last + 1 + _AHEAD) if last else ():
            if self._refuse(id_ & 0xFFFF_FFFF_FFFF_FFFF):
                count += 1
                break
        self._ledger.refused_alone(count)

    def _refuse(self, id_: int) -> bool:
        try:
            self._listener.deny(id_)
        except Vanished:
            return False
        return True
