"""The engine reports once, bounds what it keeps, and lets no detector stop another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clawback.catalog import load
from clawback.detector import Hit, detector
from clawback.model import FileActivity, Level, Lifecycle, PolicyChange, Severity, Source
from clawback.watch.engine import PER_INSTANCE, RESOURCE_LIMIT, Engine
from clawback.watch.sequences import Sequences


def each_path(name: str = "t.path", reflex: Level | None = None) -> Any:
    @detector(
        id=name,
        title="t",
        reads={FileActivity},
        severity=Severity.LOW,
        technique=name,
        reflex=reflex,
        memory=dict,
    )
    def path(event: FileActivity, memory: dict[str, int]) -> Hit:
        if event.path == "boom":
            raise ZeroDivisionError
        memory["seen"] = memory.get("seen", 0) + 1
        return Hit(resource=event.path, summary=f"{memory['seen']}" + "x" * 5000)

    return path


def test_a_finding_comes_out_once_per_policy_version(tools):
    engine = Engine([each_path()])
    first = tools.harmless(1, path="a")
    assert len(engine.examine(first)) == 1
    assert engine.examine(tools.harmless(2, path="a")) == ()
    assert len(engine.examine(tools.harmless(3, path="a", policy_version=2))) == 1
    assert len(engine.examine(tools.harmless(4, path="a", instance="support-2"))) == 1
    [found] = Engine([each_path()]).examine(first)
    engine.forget(found)
    assert len(engine.examine(tools.harmless(5, path="a"))) == 1


def test_an_error_in_one_detector_stops_neither_the_others_nor_itself(tools):
    engine = Engine([each_path("t.one"), each_path("t.two")])
    assert engine.examine(tools.harmless(1, path="boom")) == ()
    assert engine.errors == {"t.one": 1, "t.two": 1}
    assert len(engine.examine(tools.harmless(2, path="a"))) == 2


def test_an_agent_cannot_make_findings_without_end(tools):
    engine = Engine([each_path()])
    found = [item for n in range(500) for item in engine.examine(tools.harmless(n + 1, path=f"p{n}"))]
    assert len(found) == PER_INSTANCE
    assert engine.suppressed["t.path"] == 500 - PER_INSTANCE
    assert len(engine.examine(tools.harmless(501, path="p", agent="other", instance="other-1"))) == 1


def test_long_resources_are_cut_and_stay_apart(tools):
    engine = Engine([each_path()])
    [one] = engine.examine(tools.harmless(1, path="x" * 4000 + "1"))
    [two] = engine.examine(tools.harmless(2, path="x" * 4000 + "2"))
    assert one.resource != two.resource
    assert len(one.resource) <= RESOURCE_LIMIT
    assert len(one.summary) <= 1024


def test_memories_are_kept_for_the_instances_seen_last(tools):
    engine = Engine([each_path()], instances=10)
    for n in range(100):
        engine.examine(tools.harmless(n + 1, agent=f"a{n}", instance=f"i{n}"))
    assert len(engine._slots) == 10


def test_the_strongest_reflex_comes_first(tools):
    engine = Engine([each_path("t.a"), each_path("t.b", Level.ISOLATE), each_path("t.c", Level.FREEZE)])
    assert [item.detector for item in engine.examine(tools.harmless(1))] == ["t.b", "t.c", "t.a"]


def test_events_about_no_agent_find_nothing():
    beat = Lifecycle(time_ns=1, writer="w", sequence=1, source=Source.SANDBOX, component="core", status="alive")
    assert Engine([each_path()]).examine(beat) == ()


def test_gaps_repeats_and_drops_are_counted(tools):
    sequences = Sequences()
    assert [sequences.note(tools.harmless(n)) for n in (5, 6, 9, 9, 7, 10)] == [0, 0, 2, 0, 0, 0]
    sequences.note(tools.harmless(1, writer="other"))
    sequences.note(
        Lifecycle(
            time_ns=1, writer="w", sequence=11, source=Source.SANDBOX, component="sandbox", status="alive", lost=4
        )
    )
    assert (sequences.lost, sequences.repeated, sequences.dropped) == (2, 2, 4)


def test_events_about_a_component_or_a_policy_make_findings_about_those() -> None:
    shared = {"time_ns": 1, "writer": "w", "source": Source.POLICY}
    beat = Lifecycle(sequence=1, component="policy-engine", status="alive", decisions=200, slow=9, policy="p", **shared)
    change = PolicyChange(sequence=2, policy="p", policy_version=2, author="dev", widened=("allow x: y",), **shared)
    engine = Engine(load().detectors.values())
    [slow] = engine.examine(beat)
    [wide] = engine.examine(change)
    assert (slow.agent, slow.instance, slow.reflex) == ("component:policy-engine", "component:policy-engine", None)
    assert (wide.agent, wide.about_agent) == ("policy:p", False)
    assert engine.examine(replace(change, sequence=3)) == (), "one version is one finding"
    assert not engine.errors
