"""What the parent of all parts says when one of them is gone."""

from __future__ import annotations

from clawback.config import Settings
from clawback.model import Lifecycle, Severity
from clawback.model.ocsf import parse_line
from clawback.services.stack import Stack


class Part:
    """A part that ends, and starts again when it is told to."""

    name = "core"
    running = True

    def start(self) -> None:
        self.running = True


def test_a_part_that_is_gone_is_an_event_before_it_is_started_again(tmp_path):
    stack = Stack(Settings(state=tmp_path), config_file=None)
    stack.settings.telemetry.mkdir(parents=True)
    part = Part()
    stack.core = stack.gateway = part
    stack.tend()
    part.running = False
    stack.tend()
    stack.tend()
    lines = (stack.settings.telemetry / "sandbox.jsonl").read_bytes().split(b"\n")[:-1]
    events = [parse_line(line, None) for line in lines]
    assert all(isinstance(event, Lifecycle) for event in events)
    assert [(event.component, event.status, event.severity) for event in events] == [
        ("core", "lost", Severity.HIGH),
        ("core", "started", Severity.INFORMATIONAL),
    ]


def test_an_unwritable_folder_stops_no_restart(tmp_path):
    stack = Stack(Settings(state=tmp_path), config_file=None)
    stack.settings.telemetry.write_text("a file")
    part = Part()
    part.running = False
    stack.core = stack.gateway = part
    stack.tend()
    assert part.running
