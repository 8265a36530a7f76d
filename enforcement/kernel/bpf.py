"""Small eBPF programs, assembled here and loaded by bpf(2): no compiler, no library, no file of the kernel's is needed.

    code = Code()
    code.load(8, R2, R1, 8)
    code.jump("!=", R2, -1, "out")
    …
    code.label("out").set(R0, 0).leave()
    program = load(SOCKET_FILTER, code, name="denials")

Needs CAP_BPF and CAP_PERFMON (root) in the first user namespace. Formats: include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from clawback.enforcement.kernel.libc import syscall

__all__ = [
    "R0",
    "R1",
    "R2",
    "R3",
    "R4",
    "R5",
    "R6",
    "R7",
    "R8",
    "R9",
    "R10",
    "RAW_TRACEPOINT",
    "SOCKET_FILTER",
    "Code",
    "Map",
    "load",
    "raw_tracepoint",
]

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

SOCKET_FILTER = 1
RAW_TRACEPOINT = 17

MAP_LOOKUP = 1
MAP_UPDATE = 2
KTIME_GET_NS = 5
GET_CURRENT_PID_TGID = 14
GET_CURRENT_UID_GID = 15
GET_CURRENT_COMM = 16
SKB_LOAD_BYTES = 26
PROBE_READ_USER = 112
PROBE_READ_KERNEL = 113
PROBE_READ_USER_STR = 114
RINGBUF_RESERVE = 131
RINGBUF_SUBMIT = 132
RINGBUF_DISCARD = 133

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_NEXT, _PROG_LOAD, _RAW_OPEN, _MAP_DELETE = 0, 1, 2, 4, 5, 17, 3
_KINDS = {"hash": 1, "array": 2, "lru": 9, "ring": 27}
_NO_PREALLOC = 1
_LICENSE = b"Dual MIT/GPL\0"  # the tracing helpers are for programs that say so
_LOG_BYTES = 1 << 16

_INSTRUCTION = struct.Struct("=BBhi")
_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_OPERATIONS = {"+": 0x00, "-": 0x10, "*": 0x20, "/": 0x30, "|": 0x40, "&": 0x50, "<<": 0x60, ">>": 0x70, "=": 0xB0}
_JUMPS = {"==": 0x10, ">": 0x20, ">=": 0x30, "!=": 0x50, "<": 0xA0, "<=": 0xB0, "s>": 0x60, "s<": 0xC0}
_LOAD, _STORE, _STORE_NUMBER, _ALU, _JUMP = 0x61, 0x63, 0x62, 0x07, 0x05
_ATOMIC_ADD = 0xDB
_REGISTER = 0x08
_MAP_DESCRIPTOR = 1


class Code:
    """Instructions with named labels. Numbers in comparisons and arithmetic are signed 32 bits, extended to 64."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> Code:
        """Where jumps to `name` go."""
        self._labels[name] = len(self._code)
        return self

    def set(self, target: int, number: int) -> Code:
        """Target becomes a number of at most 64 bits."""
        if -(2**31) <= number < 2**31:
            return self._add(_ALU | _OPERATIONS["="], target, 0, 0, number)
        return self._wide(target, 0, number)

    def copy(self, target: int, source: int) -> Code:
        """Target becomes what the source register holds."""
        return self._add(_ALU | _REGISTER | _OPERATIONS["="], target, source)

    def do(self, target: int, operation: str, number: int) -> Code:
        """`target operation= number`."""
        return self._add(_ALU | _OPERATIONS[operation], target, 0, 0, number)

    def do_register(self, target: int, operation: str, source: int) -> Code:
        """`target operation= source`."""
        return self._add(_ALU | _REGISTER | _OPERATIONS[operation], target, source)

    def load(self, size: int, target: int, base: int, offset: int) -> Code:
        """Target becomes the `size` bytes at base + offset, unsigned."""
        return self._add(_LOAD | _SIZES[size], target, base, offset)

    def store(self, size: int, base: int, offset: int, source: int) -> Code:
        """Write a register's low bytes to base + offset."""
        return self._add(_STORE | _SIZES[size], base, source, offset)

    def store_number(self, size: int, base: int, offset: int, number: int) -> Code:
        """Write a number to base + offset."""
        return self._add(_STORE_NUMBER | _SIZES[size], base, 0, offset, number)

    def add_atomic(self, base: int, offset: int, source: int) -> Code:
        """Add a register to the 64 bits at base + offset, whole among processors."""
        return self._add(_ATOMIC_ADD, base, source, offset)

    def jump(self, condition: str, target: int, number: int, label: str) -> Code:
        """Go to the label if `target condition number`."""
        return self._add(_JUMP | _JUMPS[condition], target, 0, label, number)

    def jump_register(self, condition: str, target: int, source: int, label: str) -> Code:
        """Go to the label if `target condition source`."""
        return self._add(_JUMP | _REGISTER | _JUMPS[condition], target, source, label)

    def go(self, label: str) -> Code:
        """Go to the label."""
        return self._add(_JUMP, 0, 0, label)

    def map(self, target: int, which: Map) -> Code:
        """Target becomes the map, as helpers take it."""
        return self._wide(target, _MAP_DESCRIPTOR, which.fd)

    def call(self, helper: int) -> Code:
        """Call a helper: arguments in R1 to R5 (lost thereby), result in R0."""
        return self._add(0x85, 0, 0, 0, helper)

    def leave(self) -> Code:
        """Return R0."""
        return self._add(0x95)

    def bytes(self) -> bytes:
        """The program as the kernel takes it."""
        out = bytearray()
        for at, (operation, target, source, offset, number) in enumerate(self._code):
            away = self._labels[offset] - at - 1 if isinstance(offset, str) else offset
            out += _INSTRUCTION.pack(operation, target | source << 4, away, number)
        return bytes(out)

    def _add(self, operation: int, target: int = 0, source: int = 0, offset: int | str = 0, number: int = 0) -> Code:
        self._code.append((operation, target, source, offset, number))
        return self

    def _wide(self, target: int, kind: int, number: int) -> Code:
        low, high = struct.unpack("=ii", struct.pack("=Q", number % 2**64))
        self._add(0x18, target, kind, 0, low)
        return self._add(0, 0, 0, 0, high)


class Map:
    """One map: `hash` (made as needed, at most `entries`), `lru`, `array`, or `ring` (of `entries` bytes)."""

    def __init__(self, kind: str, *, key: int, value: int, entries: int, name: str) -> None:
        self._key, self._value = key, value
        flags = _NO_PREALLOC if kind == "hash" else 0
        block = struct.pack("=6I4x16s", _KINDS[kind], key, value, entries, flags, 0, name.encode()[:15])
        self.fd = _bpf(_MAP_CREATE, block)

    def get(self, key: bytes) -> bytes | None:
        """The value, None where there is none."""
        value = ctypes.create_string_buffer(self._value)
        try:
            _bpf(_MAP_LOOKUP, self._element(key, value))
        except FileNotFoundError:
            return None
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        held = ctypes.create_string_buffer(value, len(value))
        _bpf(_MAP_UPDATE, self._element(key, held))

    def delete(self, key: bytes) -> None:
        """Forget a key, if it is there."""
        try:
            _bpf(_MAP_DELETE, self._element(key, None))
        except FileNotFoundError:
            return

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All that is there; what changes meanwhile may be seen or not."""
        key: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self._key)
            try:
                _bpf(_MAP_NEXT, self._element(key, following))
            except FileNotFoundError:
                return
            key = following.raw
            value = self.get(key)
            if value is not None:
                yield key, value

    def close(self) -> None:
        """Let go; programs that use it keep it."""
        os.close(self.fd)

    def _element(self, key: bytes | None, value: ctypes.Array[ctypes.c_char] | None) -> bytes:
        self._held = ctypes.create_string_buffer(key, len(key)) if key is not None else None
        return struct.pack(
            "=I4xQQQ",
            self.fd,
            ctypes.addressof(self._held) if self._held else 0,
            ctypes.addressof(value) if value else 0,
            0,
        )


def load(kind: int, code: Code, *, name: str) -> int:
    """Have the kernel check and take a program; its descriptor. The checker's last words are in the `OSError`."""
    instructions = ctypes.create_string_buffer(code.bytes())
    text = ctypes.create_string_buffer(_LICENSE)

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        return _bpf(
            _PROG_LOAD,
            struct.pack(
                "=IIQQIIQII16s",
                kind,
                (len(instructions) - 1) // _INSTRUCTION.size,
                ctypes.addressof(instructions),
                ctypes.addressof(text),
                1 if log else 0,
                len(log) if log else 0,
                ctypes.addressof(log) if log else 0,
                0,
                0,
                name.encode()[:15],
            ),
        )

    try:
        return attempt(None)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise  # the right to load is missing; EACCES, in contrast, is the checker's word
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return attempt(log)
        except OSError:
            words = log.value.decode("utf-8", "backslashreplace").strip().splitlines()[-3:]
            raise OSError(error.errno, f"{name}: {os.strerror(error.errno or 0)}: {' / '.join(words)}") from None


def raw_tracepoint(name: str, program: int) -> int:
    """Run a program at a tracepoint until the returned descriptor is closed. May wait for the kernel, some 20 ms."""
    text = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_OPEN, struct.pack("=QI4x", ctypes.addressof(text), program), blocking=True)


def _bpf(command: int, block: bytes, *, blocking: bool = False) -> int:
    held = ctypes.create_string_buffer(block, len(block))
    return syscall("bpf", command, held, len(block), blocking=blocking)
