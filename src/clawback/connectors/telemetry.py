"""Reads back the telemetry that the core and the gateway of this host wrote: bounded, strict, newest first."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from clawback.errors import Unreachable
from clawback.model import Event, Source
from clawback.model.ocsf import LINE_LIMIT, Rejected, parse_line
from clawback.world import Sighted

__all__ = ["FileTelemetry"]

_CHUNK = 256 * 1024
_COMPRESSED = (".bz2", ".gz", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class FileTelemetry:
    """`STATE/telemetry`: `sandbox.jsonl`, `policy.jsonl`, `routing.jsonl`, and what was rotated and lies beside them.

    limit   bytes read of one stream at most
    """

    folder: Path
    limit: int = 256 << 20

    def events(
        self,
        *,
        sources: Collection[Source] = tuple(Source),
        agent: str = "",
        instance: str = "",
        policy: str = "",
        since_ns: int,
        until_ns: int = 0,
        most: int = 20_000,
    ) -> Sighted:
        """See `clawback.world.Telemetry`. A line that is no event is passed over: whoever watches counts those."""
        found: list[Event] = []
        complete = True
        needles = [f'"{word}"'.encode() for word in (agent, instance, policy) if word]
        for source in sources:
            kept: list[Event] = []
            for line in self._newest_first(source, since_ns):
                if line is None:
                    complete = False
                    break
                if not all(needle in line for needle in needles):
                    continue
                try:
                    event = parse_line(line, source)
                except Rejected:
                    continue
                if agent not in ("", event.agent) or instance not in ("", event.instance):
                    continue
                if policy not in ("", event.policy) or event.time_ns < since_ns or 0 < until_ns <= event.time_ns:
                    continue
                kept.append(event)
                if len(kept) >= most:
                    complete = False
                    break
            found += kept
        found.sort(key=lambda event: event.time_ns)
        return Sighted(events=tuple(found[-most:]), complete=complete and len(found) <= most)

    def _newest_first(self, source: Source, since_ns: int) -> Iterator[bytes | None]:
        """Whole lines from the end of the newest file backwards; None where there is more that was not read.

        Files last written before the span began have nothing of it.
        """
        left = self.limit
        for path in self._files(source):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # rotated away meanwhile; it is read under its new name or is gone
            except OSError as error:
                raise Unreachable(f"{path} cannot be read: {error.strerror}", hint="who may read it?") from None
            with os.fdopen(descriptor, "rb", buffering=0):
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_mtime_ns < since_ns:
                    continue
                rest, at = b"", status.st_size
                while at > 0:
                    size = min(_CHUNK, at)
                    if size > left:
                        yield None
                        return
                    left -= size
                    at -= size
                    lines = (os.pread(descriptor, size, at) + rest).split(b"\n")
                    rest = lines[0][: LINE_LIMIT + 1] if len(lines) == 1 else lines[0]
                    newest = lines[:0:-1]
                    yield from (line for line in newest if line)
                    if newest and _older(newest[-1], source, since_ns):
                        return
                if rest:
                    yield rest

    def _files(self, source: Source) -> list[Path]:
        name = f"{source.value}.jsonl"
        try:
            rotated = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, Path(entry.path))
                for entry in os.scandir(self.folder)
                if entry.name.startswith(f"{name}.") and not entry.name.endswith(_COMPRESSED)
            ]
        except FileNotFoundError:
            return []  # nothing was ever written
        except OSError as error:
            raise Unreachable(f"{self.folder} cannot be read: {error.strerror}", hint="who may read it?") from None
        return [self.folder / name, *(path for _, path in sorted(rotated, reverse=True))]


_SLACK_NS = 60 * 1_000_000_000
"""Writers of one file append in the order in which they come to it, which is not quite that of their events."""


def _older(line: bytes, source: Source, since_ns: int) -> bool:
    try:
        return parse_line(line, source).time_ns < since_ns - _SLACK_NS
    except Rejected:
        return False
