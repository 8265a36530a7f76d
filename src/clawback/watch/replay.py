"""Run the detectors over recorded telemetry: the same engine, nothing contained, nothing written, memory bounded."""

from __future__ import annotations

import heapq
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clawback.detector import Detector
from clawback.errors import InvalidInput
from clawback.model import Event, Finding
from clawback.model.ocsf import LINE_LIMIT, Rejected, parse_line
from clawback.watch.engine import Engine
from clawback.watch.lines import Lines
from clawback.watch.openshell import WRITER as OPENSHELL
from clawback.watch.openshell import is_openshell, parse_openshell
from clawback.watch.sequences import Sequences

__all__ = ["RejectedLine", "ReplayResult", "replay"]

FINDINGS_LIMIT = 10_000
REJECTED_LIMIT = 100  # lines told one by one; all are counted
_CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedLine:
    """A line that is no event: where it is, and what is wrong with it. Never what it says."""

    file: str
    line: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What the detectors say to the files.

    events          how many lines were events;  by_class: of which kinds
    rejected        how many were not, by reason;  rejected_lines: the first of them, one by one
    omitted         findings beyond those kept;  suppressed: resources beyond what one detector reports of one agent
    lost, repeated  by the writers' sequence numbers;  dropped: by the writers' own count
    detector_errors by detector; any at all is a defect
    """

    events: int
    by_class: dict[str, int]
    findings: tuple[Finding, ...]
    rejected: dict[str, int]
    rejected_lines: tuple[RejectedLine, ...]
    omitted: int
    suppressed: int
    lost: int
    repeated: int
    dropped: int
    detector_errors: dict[str, int]


class _Reader:
    """Events of some files in the order of their times, as far as each file is in order itself."""

    def __init__(self) -> None:
        self.rejected: Counter[str] = Counter()
        self.rejected_lines: list[RejectedLine] = []

    def events(self, paths: Iterable[Path]) -> Iterator[Event]:
        streams = [self._file(path) for path in paths]
        return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda event: event.time_ns)

    def _file(self, path: Path) -> Iterator[Event]:
        for number, line in enumerate(_lines(path), 1):
            if line == b"":
                continue
            try:
                if line is None:
                    raise Rejected("too-long", f"more than {LINE_LIMIT} bytes")
                if is_openshell(line):
                    if (foreign := parse_openshell(line, number)) is None:
                        self.rejected["no-counterpart"] += 1
                    else:
                        yield foreign
                    continue
                yield parse_line(line, None)
            except Rejected as error:
                self.rejected[error.reason] += 1
                if len(self.rejected_lines) < REJECTED_LIMIT:
                    self.rejected_lines.append(
                        RejectedLine(file=str(path), line=number, reason=error.reason, message=error.message)
                    )


def _lines(path: Path) -> Iterator[bytes | None]:
    """Every line of the file, with or without a last newline; None for one that is too long, b"" for an empty one."""
    lines = Lines(keep_empty=True)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield from lines.feed(chunk)
    if lines.unfinished or lines.skipping:
        yield from lines.feed(b"\n")


def replay(paths: Iterable[str | os.PathLike[str]], detectors: Iterable[Detector] | None = None) -> ReplayResult:
    """Run `detectors` (all of the catalogue's, unless given) over the files, whatever streams they hold,
    OpenShell's own among them.

    Raises `InvalidInput` naming a file that cannot be read. A line that is no event is counted, not an error.
    """
    files = [Path(path) for path in paths]
    for file in files:
        _check(file)
    if detectors is None:
        from clawback.catalog import load

        detectors = load().detectors.values()
    engine, sequences, reader = Engine(detectors), Sequences(), _Reader()
    by_class: Counter[str] = Counter()
    findings: list[Finding] = []
    omitted = 0
    try:
        for event in reader.events(files):
            by_class[type(event).__name__] += 1
            if event.writer != OPENSHELL:
                sequences.note(event)
            for finding in engine.examine(event):
                if len(findings) < FINDINGS_LIMIT:
                    findings.append(finding)
                else:
                    omitted += 1
    except OSError as error:
        raise InvalidInput(f"{error.filename or files}: {error.strerror}") from None
    return ReplayResult(
        events=by_class.total(),
        by_class=dict(by_class),
        findings=tuple(findings),
        rejected=dict(reader.rejected),
        rejected_lines=tuple(reader.rejected_lines),
        omitted=omitted,
        suppressed=engine.suppressed.total(),
        lost=sequences.lost,
        repeated=sequences.repeated,
        dropped=sequences.dropped,
        detector_errors=dict(engine.errors),
    )


def _check(path: Path) -> None:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InvalidInput(f"{path}: a folder, not a file", hint="name the .jsonl files in it")
        with path.open("rb"):
            pass
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}", hint="give telemetry files, OCSF JSON lines") from None
