"""The whole of watch over real files and a real journal: detect, contain, hand over, restart."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from clawback.config import Settings
from clawback.detectors.secrets import DETECTOR as SECRETS
from clawback.detectors.violation_spike import DETECTOR as SPIKE
from clawback.model import Disposition, Level, Source
from clawback.model.ocsf import encode
from clawback.watch.engine import Engine
from clawback.watch.main import Watch


class Handed:
    """Takes incidents and keeps their ids."""

    def __init__(self) -> None:
        self.incidents: list[str] = []
        self.stopped = False

    def submit(self, incident: str) -> None:
        self.incidents.append(incident)

    def tend(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def station(tmp_path: Path, journal, world, core):
    """Starts and stops watches on one state folder."""
    settings = Settings(state=tmp_path / "state")
    running: list[tuple[Watch, threading.Thread]] = []

    def start(per_minute: int = 0) -> tuple[Watch, Handed]:
        handed = Handed()
        made = Watch(
            settings,
            world,
            journal,
            handed,
            playbook_of=lambda _detector: "p",
            engine=Engine([SECRETS, SPIKE]),
            ahead_seconds=60,
            per_minute=per_minute,
        )
        thread = threading.Thread(target=made.run)
        thread.start()
        running.append((made, thread))
        while not (settings.run / "watch.sock").exists():
            assert thread.is_alive()
            thread.join(0.002)
        return made, handed

    def stop() -> None:
        while running:
            made, thread = running.pop()
            made.stop()
            thread.join()

    yield SimpleNamespace(start=start, stop=stop, settings=settings, sandbox=settings.telemetry / "sandbox.jsonl")
    stop()


def test_from_a_line_to_a_contained_agent_and_an_incident_handed_over(station, core, journal, tools):
    core.add("support")
    made, handed = station.start()
    tools.append(station.sandbox, tools.harmless(1), tools.canary(2))
    tools.eventually(lambda: handed.incidents)
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}
    [incident] = journal.incidents()
    assert handed.incidents == [incident.id]
    assert incident.findings[0].events == ("sandbox/w/2",)
    assert made.reflex.last_frozen_ms > 0
    station.stop()
    assert handed.stopped


def test_a_restart_neither_loses_nor_repeats(station, core, journal, tools):
    core.add("support")
    core.add("other")
    _, handed = station.start()
    tools.append(station.sandbox, tools.canary(1))
    tools.eventually(lambda: handed.incidents)
    station.stop()
    other = {"agent": "other", "instance": "other-1"}
    tools.append(station.sandbox, tools.canary(2, **other))
    station.sandbox.rename(station.sandbox.with_name("sandbox.jsonl.1"))
    tools.append(station.sandbox, tools.harmless(3))
    made, handed = station.start()
    tools.eventually(lambda: len(journal.incidents()) == 2)
    tools.eventually(lambda: made.engine.examined == 3)
    tools.eventually(lambda: core.held("other") == {Level.FREEZE, Level.ISOLATE})
    assert len(core.calls) == 4
    assert made.sequences.lost == 0


def test_what_the_detectors_knew_is_known_after_a_restart(station, core, journal, tools):
    core.add("support")
    blocked = {"disposition": Disposition.BLOCKED}
    made, _ = station.start()
    tools.append(station.sandbox, *[tools.harmless(n, **blocked) for n in range(1, 16)])
    tools.eventually(lambda: made.engine.examined == 15)
    station.stop()
    made, handed = station.start()
    tools.append(station.sandbox, *[tools.harmless(n, **blocked) for n in range(16, 22)])
    tools.eventually(lambda: handed.incidents)
    assert journal.incidents()[0].findings[0].detector == "sandbox.violation-spike"


def test_a_core_that_is_away_is_waited_for(station, core, tools):
    core.add("support")
    core.away = True
    made, handed = station.start()
    tools.append(station.sandbox, tools.canary(1))
    tools.eventually(lambda: made.lanes.counts["retried"] > 0)
    core.away = False
    tools.eventually(lambda: handed.incidents)
    assert core.held("support") == {Level.FREEZE, Level.ISOLATE}


def test_a_position_is_not_saved_ahead_of_an_unanswered_finding(station, core, journal, tools):
    core.add("support")
    core.away = True
    made, _ = station.start()
    tools.append(station.sandbox, tools.canary(1))
    tools.eventually(lambda: made.lanes.counts["retried"] > 0)
    station.stop()
    core.away = False
    station.start()
    tools.eventually(lambda: core.held("support") == {Level.FREEZE, Level.ISOLATE})
    tools.eventually(lambda: len(journal.incidents()) == 1)


def test_bad_telemetry_is_counted_and_contains_nobody(station, core, journal, tools):
    core.add("support")
    core.add("other")
    made, handed = station.start()
    forged = json.loads(encode(tools.canary(1)))
    forged["unmapped"]["agent"] = "../support"
    tools.append(
        station.sandbox,
        b"not json\n",
        b"\xff\xfe\n",
        b'{"a":NaN}\n',
        b'{"a":1,"a":1}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 200_000 + b"\n",
        json.dumps(forged).encode() + b"\n",
        tools.canary(2, instance="support-9"),
        tools.canary(3, agent="other"),
        tools.canary(4, agent="nobody", instance="nobody-1"),
        tools.canary(5, source=Source.POLICY),
        tools.harmless(9),
        tools.harmless(10, time_ns=2**62),
        tools.harmless(11, time_ns=0),
    )
    tools.eventually(lambda: made.engine.examined == 6)
    tools.eventually(lambda: made.lanes.idle)
    assert dict(made.rejected) == {
        "not-json": 2,
        "not-utf-8": 1,
        "duplicate-key": 1,
        "too-deep": 1,
        "identity": 1,
        "stream": 1,
    }
    assert dict(made.reflex.counts) == {"other-instance": 2, "unknown-agent": 1}
    assert core.calls == []
    assert journal.incidents() == ()
    report = made.report()
    assert report["rejected_total"]["too-long"] == 1
    assert report["events_lost_total"] == 4
    assert report["events_ahead_of_clock_total"] == 1
    tools.append(station.sandbox, tools.canary(12))
    tools.eventually(lambda: handed.incidents)


def test_many_agents_at_once(station, core, journal, tools):
    for n in range(30):
        core.add(f"a{n}")
    made, handed = station.start()
    tools.append(station.sandbox, *[tools.canary(n + 1, agent=f"a{n}", instance=f"a{n}-1") for n in range(30)])
    tools.eventually(lambda: len(handed.incidents) == 30)
    tools.eventually(lambda: made.lanes.idle)
    assert all(core.held(f"a{n}") == {Level.FREEZE, Level.ISOLATE} for n in range(30))


def test_health_and_metrics(station, tools):
    station.start()

    def get(path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("watch")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(station.settings.run / "watch.sock"))
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer.status, content

    tools.append(station.sandbox, b"rubbish\n", tools.harmless(1))
    tools.eventually(lambda: "clawback_watch_events_total 1" in get("/metrics")[1])
    assert 'clawback_watch_rejected_total{kind="not-json"} 1' in get("/metrics")[1]
    assert json.loads(get("/healthz")[1])["status"] == "ok"
    assert get("/x")[0] == 404
    station.stop()
    assert not (station.settings.run / "watch.sock").exists()


def test_a_cap_is_kept_shown_and_lifted_while_watching(station, core, journal, tools):
    core.add("support")
    core.add("billing")
    made, handed = station.start(per_minute=1)
    tools.append(station.sandbox, tools.canary(1), tools.canary(2, agent="billing", instance="billing-1"))
    tools.eventually(lambda: len(handed.incidents) == 2)
    report = made.report()
    assert (report["containments_withheld_total"], report["containments_waiting"], report["cap_per_minute"]) == (
        1,
        1,
        1,
    )
    assert report["answers_total"] == {"contained": 1, "withheld": 1}
    assert core.held("billing") == set()
    journal.override(0, seconds=60, reason="they are all affected", by="alice")
    tools.eventually(lambda: core.held("billing") == {Level.FREEZE, Level.ISOLATE})
    tools.eventually(lambda: len(handed.incidents) == 3)
    assert made.report()["cap_overridden"] == 1
    assert made.report()["containments_waiting"] == 0
