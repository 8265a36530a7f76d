"""A bundle of a real agent: whole, hashed, bounded, and without a secret in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from clawback.enforcement.evidence import Limits, collect
from clawback.enforcement.quarantine import freeze, restrict, stop, tree
from clawback.errors import InvalidInput
from clawback.model import Enforcement

pytestmark = pytest.mark.kernel

PLANTED = {
    "file": "planted-in-a-secret-file",
    "environment": "planted-in-the-environment",
    "command": "planted-in-the-command-line",
    "output": "hvs.plantedInTheOutput0123456789",
    "descriptor": "planted-in-an-open-file",
    "store": "planted-in-the-store-only",
}
AGENT = f"""
print("using {PLANTED["output"]} and {PLANTED["file"]} and {PLANTED["store"]}\\x1b[31m", flush=True)
kept = open("/tmp/kept", "w+"); kept.write("{PLANTED["descriptor"]}"); kept.flush()
if os.fork() == 0:
    os.execv(sys.executable, ["worker", "-c", "import time; time.sleep(1000)", "--password={PLANTED["command"]}",
                              "--token", "{PLANTED["command"]}"])
link = socket.create_connection(("127.0.0.1", 3128))
threading.Thread(target=time.sleep, args=(1000,)).start()
board[0] = 1
time.sleep(1000)
"""


def launch(make):
    made = make(AGENT, secrets={"token": PLANTED["file"]}, environment={"API_TOKEN": PLANTED["environment"]})
    state = Path(made.box.folder).parents[2]
    store = state / "secrets" / made.box.agent
    store.mkdir(parents=True)
    version = store / "token" / "v-01"
    version.mkdir(parents=True)
    (version / "value").write_text(PLANTED["store"])
    telemetry = state / "telemetry"
    telemetry.mkdir(exist_ok=True)
    lines = [
        json.dumps({"instance": made.box.instance, "path": "/x", "password": PLANTED["command"]}),
        json.dumps({"instance": "another", "path": "/not-this-one"}),
        f'not json "{made.box.instance}"',
    ]
    (telemetry / "sandbox.jsonl").write_text("\n".join(lines) + "\n")
    make.wait_until(lambda: made.board[0] == 1 and len(tree.processes(made.box)) >= 3, "the agent is at work")
    make.wait_until(lambda: any(b"--token" in command(pid) for pid in tree.processes(made.box)), "the worker runs")
    return made


def command(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def load(bundle, name):
    return json.loads(Path(bundle.folder, name).read_text())


def assert_whole(bundle):
    manifest = Path(bundle.manifest).read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == bundle.sha256
    content = json.loads(manifest)
    listed = {entry["path"]: entry for entry in content["files"]}
    assert {path.name for path in Path(bundle.folder).iterdir()} == {*listed, "manifest.json"}
    assert bundle.files == len(listed)
    for name, entry in listed.items():
        data = Path(bundle.folder, name).read_bytes()
        assert len(data) == entry["bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    assert bundle.bytes == sum(entry["bytes"] for entry in listed.values())
    assert tuple(content["truncated"]) == bundle.truncated
    return content


def assert_no_secret(bundle):
    for path in Path(bundle.folder).iterdir():
        text = path.read_text()
        for place, value in PLANTED.items():
            assert value not in text, f"{place} in {path.name}"


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_bundle_tells_what_the_agent_is_and_holds_no_secret(make, state, frozen):
    made = launch(make)
    if frozen:
        freeze.apply(made.box)
    bundle = collect(made.box, state / "evidence", incident="INC-1")
    assert bundle.folder.startswith(str(state / "evidence" / "INC-1"))
    content = assert_whole(bundle)
    assert content["instance"] == made.box.instance
    assert content["incident"] == "INC-1"
    word = "frozen" if frozen else "running"
    assert content["state"] == {"before": word, "after": word}
    assert_no_secret(bundle)
    if frozen:
        assert freeze.probe(made.box).enforcement is Enforcement.FULL

    processes = {entry["pid"]: entry for entry in load(bundle, "processes.json")}
    assert set(processes) == set(tree.processes(made.box))
    worker = next(entry for entry in processes.values() if entry["command"][:1] == ["worker"])
    assert worker["command"][-3:] == ["--password=[redacted]", "--token", "[redacted]"]
    agent = processes[int(worker["status"]["PPid"])]
    assert "API_TOKEN" in agent["environment_names"]
    assert any(entry["target"].endswith("/tmp/kept") for entry in agent["descriptors"])
    assert len(agent["threads"]) == 2
    assert all(thread["seccomp_filters"] > 0 for thread in agent["threads"])
    assert agent["maps"]["mappings"] > 10
    assert agent["limits"]["Max open files"]
    assert any(one["remote"] == "127.0.0.1:3128" for one in load(bundle, "sockets.json")["inet"])
    assert "populated 1" in load(bundle, "cgroup.json")[made.box.cgroup]["cgroup.events"]
    assert "/run/secrets" in Path(bundle.folder, "mountinfo.txt").read_text()
    assert load(bundle, "agent.json")["agent"] == made.box.agent
    output = Path(bundle.folder, "output.log").read_text()
    assert "using [redacted] and [redacted] and [redacted]\\x1b[31m" in output
    lines = Path(bundle.folder, "telemetry-sandbox.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["/x"]


def test_a_restricted_agent_still_leaks_nothing(make, state):
    made = launch(make)
    restrict.apply(made.box, make.run)
    assert_no_secret(collect(made.box, state / "evidence", secrets=[PLANTED["file"]]))


def test_what_does_not_fit_is_cut_and_named(make, state):
    made = launch(make)
    bundle = collect(made.box, state / "evidence", limits=Limits(bytes=4000, processes=2, descriptors=2, tail=20))
    assert bundle.bytes <= 4000
    assert_whole(bundle)
    assert_no_secret(bundle)
    text = " ".join(bundle.truncated)
    assert "processes: 2 of" in text
    assert "descriptors" in text
    assert "processes.json" in text
    late = collect(made.box, state / "evidence", limits=Limits(seconds=0))
    assert any("time was over" in line for line in late.truncated)
    assert_whole(late)


def test_an_ended_agent_leaves_its_records(make, state):
    made = launch(make)
    stop.apply(made.box)
    bundle = collect(made.box, state / "evidence", incident="INC-2")
    assert any("ended" in line for line in bundle.truncated)
    assert_whole(bundle)
    assert {"agent.json", "output.log", "telemetry-sandbox.jsonl"} <= {
        path.name for path in Path(bundle.folder).iterdir()
    }


def test_two_bundles_stand_side_by_side(make, state):
    made = launch(make)
    one, other = (collect(made.box, state / "evidence", incident="INC-3") for _ in range(2))
    assert one.folder != other.folder


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "-", "x" * 200])
def test_an_incident_is_a_name(make, state, name):
    made = make("time.sleep(1000)")
    with pytest.raises(InvalidInput):
        collect(made.box, state, incident=name)


def test_an_agent_full_of_junk_is_bounded(make, state):
    made = make(
        """
kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(1000)]
import ctypes
ctypes.CDLL(None).prctl(15, b"\\x1b]0;evil\\n) R 1 1", 0, 0, 0)
for _ in range(40):
    if os.fork() == 0: time.sleep(1000)
print("x" * 3_000_000, flush=True)
board[0] = 1
time.sleep(1000)
"""
    )
    make.wait_until(lambda: made.board[0] == 1, "the junk is there")
    limits = Limits(bytes=1 << 20)
    bundle = collect(made.box, state / "evidence", limits=limits)
    assert bundle.bytes <= limits.bytes
    assert_whole(bundle)
    assert "\x1b" not in Path(bundle.folder, "processes.json").read_text()
    assert any("descriptors" in line for line in bundle.truncated)
