"""The same life of an agent on kernels that each lack something: what is claimed there, and whether it is so.

`mask.py` takes the feature away, `scene.py` plays the life; what is expected stands here and in docs/kernels.md, which
is held to it.
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement import native
from clawback.enforcement.kernel import cgroups

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"
_LEVELS = ("freeze", "isolate", "restrict", "seal", "stop")
_RANK = ("none", "partial", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """On a whole kernel everything is as the defaults say.

    refused    part of the sentence with which no sandbox starts; empty where one does
    layers     those that are not full
    levels     as an enforcement each; `missing` by level: a part of what it names
    doctor     features that doctor calls missing
    """

    refused: str = ""
    layers: dict[str, str] = field(default_factory=dict)
    freeze: str = "full"
    isolate: str = "full"
    restrict: str = "partial"  # the agent has a writable file open, which no kernel takes back
    seal: str = "full"
    stop: str = "full"
    missing: dict[str, str] = field(default_factory=dict)
    escalation: str = "full"
    doctor: tuple[str, ...] = ()


_GROUPLESS = {"freeze": "stopped by signal, not by the cgroup freezer"}
_NO_LISTENER = "this kernel gives no listener for them"

MATRIX: dict[str, Expected] = {
    "nothing": Expected(),
    "user-namespaces": Expected(
        refused="namespaces: a process gets none of its own (EPERM); Linux has it since 4.6",
        doctor=("clone3", "namespaces", "ptrace"),
    ),
    "clone3": Expected(refused="clone3 is refused (ENOSYS); Linux has it since 5.7", doctor=("clone3",)),
    "pidfd": Expected(refused="pidfd_send_signal is refused (ENOSYS); Linux has it since 5.6", doctor=("pidfd",)),
    "close-range": Expected(refused="close_range is refused (ENOSYS); Linux has it since 5.9", doctor=("close_range",)),
    "mount-api": Expected(refused="open_tree is refused (ENOSYS); Linux has it since 5.12", doctor=("mount api",)),
    "mount-setattr": Expected(
        refused="mount_setattr is refused (ENOSYS); Linux has it since 5.12", doctor=("mount api",)
    ),
    "landlock": Expected(
        layers={"landlock": "none"},
        seal="partial",
        missing={"seal": "Landlock is not in this kernel"},
        doctor=("landlock",),
    ),
    "landlock-1": Expected(layers={"landlock": "partial"}, doctor=("landlock",)),
    "landlock-2": Expected(layers={"landlock": "partial"}, doctor=("landlock",)),
    "landlock-3": Expected(layers={"landlock": "partial"}, doctor=("landlock",)),
    "landlock-4": Expected(layers={"landlock": "partial"}),
    "landlock-5": Expected(layers={"landlock": "partial"}),
    "landlock-6": Expected(),
    "notify": Expected(escalation=_NO_LISTENER, doctor=("user notification",)),
    "ptrace": Expected(seal="none", missing={"seal": "could not be seized"}, doctor=("ptrace",)),
    "fanotify": Expected(missing={"restrict": "this kernel has no fanotify permission events"}, doctor=("fanotify",)),
    "sock-diag": Expected(
        isolate="partial", missing={"isolate": "this kernel has no sock_diag"}, doctor=("sock_diag",)
    ),
    "cgroup-v2": Expected(
        layers={"cgroup": "none"}, freeze="partial", missing=_GROUPLESS, doctor=("cgroup freeze and kill",)
    ),
    "cgroup-v1": Expected(
        layers={"cpu": "none", "memory": "none", "pids": "partial"},
        missing={"restrict": "there is no pids controller"},
        doctor=("cgroup limits",),
    ),
    "cgroups": Expected(
        layers={"cgroup": "none", "cpu": "none", "memory": "none", "pids": "partial"},
        freeze="partial",
        missing=_GROUPLESS | {"restrict": "there is no pids controller"},
        doctor=("cgroup freeze and kill", "cgroup limits"),
    ),
    "audit": Expected(doctor=("audit",)),
    "process-events": Expected(doctor=("process events",)),
    "bpf": Expected(doctor=("call tracing",)),
    "perf": Expected(),
}
"""Mask of `mask.py` → what comes of it. The machine is a hybrid one: limits are v1's, the freezer is v2's."""

# By both programs that make sandboxes, where it is they that need the feature.
_IN_PYTHON = frozenset({"nothing", "user-namespaces", "clone3", "close-range", "mount-api", "notify", "landlock-3"})
_RUNS = [(name, way) for name in MATRIX for way in ("native", "python") if way == "native" or name in _IN_PYTHON]


@pytest.fixture
def run(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, way = request.param
    if way == "native" and native.way().program is None and not os.environ.get(native.VARIABLE):
        pytest.skip(f"no compiled shim here: {native.way().why}")
    return name, way


@pytest.mark.parametrize("run", _RUNS, ids="-".join, indirect=True)
def test_what_is_claimed_where_something_is_missing(
    run: tuple[str, str], runs: dict[tuple[str, str], Future[Any]]
) -> None:
    played = runs[run].result()
    assert played.status == 0, played.said
    assert "Traceback" not in played.said, played.said
    expected, seen = MATRIX[run[0]], played.seen
    if run[0].startswith("landlock-"):  # who plays an older Landlock listens itself, and leaves no room for another
        expected = replace(expected, escalation=_NO_LISTENER, doctor=(*expected.doctor, *MATRIX["notify"].doctor))
    assert {name for name, (ok, _) in seen["features"].items() if not ok} == set(expected.doctor)
    if expected.refused:
        assert expected.refused in seen.get("refused", ""), seen
        assert "\n" not in seen["refused"]
        assert seen["hint"]
        assert set(seen) == {"features", "refused", "hint"}
    else:
        assert "refused" not in seen, seen
        _as_expected(expected, seen)
        _true(seen)
    _nothing_left(played)


def _as_expected(expected: Expected, seen: dict[str, Any]) -> None:
    found = {name: value for name, value in seen["layers"].items() if value != "full"}
    assert found == expected.layers
    levels = {level: seen["levels"][level]["enforcement"] for level in _LEVELS}
    assert levels == {level: getattr(expected, level) for level in _LEVELS}, seen["levels"]
    for level, words in expected.missing.items():
        assert words in "; ".join(seen["levels"][level]["missing"])
    assert expected.escalation in seen["escalation"]
    assert "Errno" not in seen["escalation"] + json.dumps(seen["levels"])


def _true(seen: dict[str, Any]) -> None:
    """Nothing is claimed that an attempt from inside, or the agent's own, contradicts."""
    levels, layers, tries = seen["levels"], seen["layers"], seen["tries"]
    assert seen["before"] == {"open": 0, "socket": 0, "fork": 0}
    if layers["landlock"] != "none":
        assert tries["open /"][0]
    if layers["seccomp"] == "full":
        assert tries["syscall mount"][0]
    for level, found in levels.items():
        assert _RANK.index(found["probe"]) <= _RANK.index(found["enforcement"]), (level, found)
        assert (found["enforcement"] == "full") is (not found["missing"]), (level, found)
        assert not found["moves"], level  # the first level, by whatever means, holds until it is released
    if levels["isolate"]["enforcement"] != "none":
        assert levels["isolate"]["tries"]["connect example.com:443"][0]
    restrict = levels["restrict"]
    assert restrict["tries"]["open /run/secrets/token"] != tries["open /run/secrets/token"]
    if not any(what.startswith("file opens") for what in restrict["missing"]):
        assert restrict["tries"]["open /run/secrets/token"][0]
        assert restrict["tries"]["open /"][0]
    _seal_true(seen)
    released = {level: found["enforcement"] for level, found in seen["released"].items()}
    assert released == {"seal": levels["seal"]["enforcement"], "restrict": "none", "isolate": "none", "freeze": "none"}


def _seal_true(seen: dict[str, Any]) -> None:
    """After all else was released the agent's own calls tell whether its seal is one."""
    after, seal = seen["after"], seen["levels"]["seal"]
    if seal["counts"]["sealed"]:
        assert after["socket"], after
        assert after["fork"], after
    else:
        assert seal["enforcement"] == "none"
        assert after == seen["before"]
    if seal["counts"]["walled"]:
        assert after["open"], after
    if seal["enforcement"] == "full":
        assert seal["counts"]["sealed"] == seal["counts"]["walled"] == seal["counts"]["threads"] > 0


def _nothing_left(played: Any) -> None:
    roots = cgroups.discover()
    groups = [root for root in (roots.unified, *roots.v1.values()) if root]
    assert not [group for root in groups for group in Path(root).glob(f"{played.group}*")]
    assert not list(Path(played.state, "spares").glob("*"))
    assert str(played.state) not in Path("/proc/self/mountinfo").read_text()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            assert folder.stat().st_uid not in played.uids, (folder / "cmdline").read_text()
        except FileNotFoundError:
            continue


def test_the_page_says_what_is_expected() -> None:
    """docs/kernels.md: a row for each mask, `name` first, with what a sandbox and each level come to."""
    rows = {}
    for line in _DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if found := re.fullmatch(r"`([a-z0-9-]+)`", cells[0]):
            rows[found[1]] = cells[3:]
    assert rows.keys() == MATRIX.keys()
    for name, (sandbox, *levels, _doctor) in rows.items():
        expected = MATRIX[name]
        if expected.refused:
            assert sandbox.startswith("refused"), name
            continue
        said = {layer: value for value, layer in re.findall(r"(partial|none): `([\w-]+)`", sandbox)}
        assert said == expected.layers, name
        words = [getattr(expected, level) for level in _LEVELS]
        if expected.escalation != "full":
            assert "escalation" in sandbox, name
        assert levels == words, name
    for name, row in rows.items():
        assert set(re.findall(r"`([\w ]+)`", row[-1])) == set(MATRIX[name].doctor), name
