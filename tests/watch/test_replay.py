"""Replaying files finds what live telemetry would, tells what is no telemetry, and needs no memory to speak of."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from clawback.detectors.secrets import DETECTOR as SECRETS
from clawback.detectors.violation_spike import DETECTOR as SPIKE
from clawback.errors import InvalidInput
from clawback.model import Disposition, KernelActivity, NetworkActivity, Source
from clawback.model.ocsf import encode
from clawback.watch.replay import replay

DETECTORS = (SECRETS, SPIKE)
START_NS = 1_760_000_000_000_000_000


def test_findings_and_rejected_lines(tmp_path: Path, tools) -> None:
    path = tmp_path / "mixed.jsonl"
    network = NetworkActivity(
        time_ns=START_NS,
        writer="g",
        sequence=1,
        source=Source.POLICY,
        agent="support",
        instance="support-1",
        host="h",
        port=1,
    )
    tools.append(
        path,
        tools.harmless(1),
        b"\n",
        b"{\n",
        network,
        b"x" * 70_000 + b"\n",
        b"\xff\n",
        tools.canary(4),
        tools.canary(5),
        b'{"half":',
    )
    result = replay([path], DETECTORS)
    assert (result.events, result.by_class) == (4, {"FileActivity": 3, "NetworkActivity": 1})
    assert [item.resource for item in result.findings] == ["/root/.aws/credentials"]
    assert result.rejected == {"not-json": 2, "too-long": 1, "not-utf-8": 1}
    assert [(item.line, item.reason) for item in result.rejected_lines] == [
        (3, "not-json"),
        (5, "too-long"),
        (6, "not-utf-8"),
        (9, "not-json"),
    ]
    assert result.lost == 2


def test_files_of_several_streams_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    def refusal(n: int, source: Source) -> bytes:
        at = START_NS + n * 60_000_000_000
        shared: dict[str, Any] = {"time_ns": at, "writer": "w", "sequence": n, "agent": "a", "instance": "a-1"}
        shared["disposition"] = Disposition.BLOCKED
        if source is Source.SANDBOX:
            return encode(KernelActivity(source=source, syscall="mount", **shared))
        return encode(NetworkActivity(source=source, host="h", port=1, **shared))

    (tmp_path / "sandbox.jsonl").write_bytes(b"".join(refusal(n, Source.SANDBOX) for n in range(1, 400, 4)))
    (tmp_path / "policy.jsonl").write_bytes(b"".join(refusal(n, Source.POLICY) for n in range(3, 400, 4)))
    result = replay([tmp_path / "policy.jsonl", tmp_path / "sandbox.jsonl"], DETECTORS)
    assert [item.detector for item in result.findings] == ["sandbox.violation-spike"]
    assert result.findings[0].time_ns == START_NS + 41 * 60_000_000_000, "the 21st of both together"


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=str(tmp_path)):
        replay([tmp_path / name], DETECTORS)


@pytest.mark.slow
def test_a_large_file_needs_little_memory(tmp_path: Path, tools) -> None:
    path = tmp_path / "large.jsonl"
    block = b"".join(encode(tools.harmless(n + 1, path=f"/tmp/{n}")) for n in range(1000))
    with path.open("wb") as file:
        for _ in range(100):
            file.write(block)
        file.write(b"x" * 50_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = replay([path], DETECTORS)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert result.events == 100_000
    assert result.rejected == {"too-long": 1}
    assert grown < 30_000, f"{grown} KiB"
