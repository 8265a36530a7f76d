"""Whether a local model answers is seen by connecting to it, and by nothing else."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.gateway.destinations import Destinations
from clawback.enforcement.gateway.local_models import LocalModels
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import InferenceEndpoint, InferenceKind, Lifecycle, Source
from clawback.model.ocsf import parse_line

LOCAL, CLOUD = InferenceKind.LOCAL, InferenceKind.CLOUD


@pytest.fixture
def look(tmp_path: Path) -> Any:
    """What is reported of these endpoints, by one look at each call."""

    def of(*endpoints: InferenceEndpoint) -> list[Any]:
        async def once() -> None:
            destinations = Destinations({"gpu.test": "127.0.0.1"}, ["127.0.0.1/32"], None)
            writer = TelemetryWriter(tmp_path, Source.ROUTING)
            await LocalModels(lambda: endpoints, destinations, writer).look()
            writer.close()
            destinations.close()

        asyncio.run(once())
        lines = (tmp_path / "routing.jsonl").read_bytes().splitlines()
        return [parse_line(line, Source.ROUTING) for line in lines]

    return of


@pytest.fixture
def port() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_one_that_answers(look: Any, port: int) -> None:
    [said] = look(InferenceEndpoint(host="gpu.test", kind=LOCAL, port=port))
    assert isinstance(said, Lifecycle)
    assert (said.subject[0], said.status) == ("component:local-model", "available")


def test_one_that_does_not(look: Any) -> None:
    [said] = look(InferenceEndpoint(host="gpu.test", kind=LOCAL, port=closed()))
    assert said.status == "unavailable"
    assert "gpu.test" in said.message


def test_of_two_one_is_enough(look: Any, port: int) -> None:
    away, there = (InferenceEndpoint(host="gpu.test", kind=LOCAL, port=number) for number in (closed(), port))
    [said] = look(away, there)
    assert said.status == "available"


def test_an_address_that_no_agent_may_reach_does_not_answer(look: Any) -> None:
    [said] = look(InferenceEndpoint(host="127.0.0.2", kind=LOCAL, port=9))
    assert said.status == "unavailable"


def test_what_cannot_be_tried_says_nothing(look: Any, port: int) -> None:
    endpoints = (
        InferenceEndpoint(host="cloud.test", kind=CLOUD, port=port),
        InferenceEndpoint(host="*.gpu.test", kind=LOCAL, port=port),
        InferenceEndpoint(host="gpu.test", kind=LOCAL),
    )
    assert look(*endpoints) == []
