"""What a launched agent sees and leaves: its ends, secrets, environment, paths, limits and decoys."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from clawback.enforcement.policy.calls import SyscallPolicy
from clawback.enforcement.policy.types import SandboxPolicy
from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.output import LIMIT
from clawback.errors import InvalidInput
from clawback.model import AgentState, Enforcement

pytestmark = pytest.mark.kernel

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: groups and outer ids")


@pytest.mark.parametrize(
    ("script", "status", "number"),
    [("exit 0", 0, 0), ("exit 7", 7, 0), ("exit 137", 137, 0), ("kill -9 $$", 137, 9), ("kill -15 $$", 143, 15)],
)
def test_the_end_is_the_command_s_own(sandboxes: Any, script: str, status: int, number: int) -> None:
    launched = sandboxes.launch("sh", "-c", script)
    assert launched.wait(10) == status
    ending = json.loads(Path(launched.record.folder, "exit.json").read_text())
    assert (ending["status"], ending["signal"]) == (status, number)
    assert inventory.state(launched.record) is AgentState.EXITED


def test_what_the_command_left_running_ends_with_it(sandboxes: Any) -> None:
    launched = sandboxes.launch("sh", "-c", "sleep 300 & echo started")
    assert launched.wait(10) == 0
    assert not inventory.is_process(launched.record.pid, launched.record.start_ticks)


def test_signals_to_the_first_process_reach_the_command(sandboxes: Any, state: Path) -> None:
    reader, writer = os.pipe()
    launched = sandboxes.launch(
        "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done", stdio=(0, writer, writer)
    )
    os.close(writer)
    assert os.read(reader, 3) == b"up\n"
    os.close(reader)
    os.kill(launched.record.pid, signal.SIGTERM)
    assert launched.wait(10) == 5


def test_a_signal_that_comes_with_the_command_s_first_instruction_is_not_lost(sandboxes: Any) -> None:
    for _ in range(5):
        launched = sandboxes.launch("sh", "-c", "trap 'exit 5' TERM; kill -TERM 1; while :; do sleep 0.05; done")
        assert launched.wait(10) == 5


def test_the_command_starts_with_no_signal_blocked_and_none_ignored(sandboxes: Any) -> None:
    seen = sandboxes.ask("""
for line in open("/proc/self/status"):
    name, _, value = line.partition(":")
    if name in ("SigBlk", "SigIgn"): seen[name] = int(value, 16)
""")
    assert seen["SigBlk"] == 0
    assert seen["SigIgn"] & 0x7FFF_FFFF == 1 << 12 | 1 << 24  # SIGPIPE and SIGXFSZ, by Python itself


def test_a_command_that_is_not_there_is_the_caller_s_mistake(sandboxes: Any) -> None:
    with pytest.raises(InvalidInput, match="no-such-program"):
        sandboxes.launch("no-such-program")
    with pytest.raises(InvalidInput, match="/etc/hosts"):
        sandboxes.launch("/etc/hosts")
    records, problems = inventory.read_all(sandboxes.spawner.state)
    assert (records, problems) == ((), ())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"agent": "../up"}, "agent '../up'"),
        ({"readable": ("/root",)}, "/root would show too much"),
        ({"readable": ("relative",)}, "'relative' is not an absolute path"),
        ({"writable": ("/no/such/folder",)}, "/no/such/folder does not exist"),
        ({"writable": ("/usr/local/bin",)}, "/usr/local/bin is part of the system"),
        ({"environment": {"LD_PRELOAD": "/x"}}, "LD_PRELOAD"),
        ({"environment": {"HTTP_PROXY": "http://elsewhere"}}, "HTTP_PROXY"),
        ({"workdir": "/home"}, "/home would show too much"),
        ({"secrets": {"../../etc/x": "v"}}, "secret"),
    ],
)
def test_a_bad_order_is_refused_by_name(sandboxes: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words.replace(".", r"\.")):
        sandboxes.launch("true", **more)


def test_secrets_are_files_and_nowhere_else(sandboxes: Any) -> None:
    value = "value-that-only-the-file-holds"
    seen = sandboxes.ask(
        """
status = os.stat("/run/secrets/token")
seen["secret"] = open("/run/secrets/token").read()
seen["mode"] = oct(status.st_mode & 0o777)
seen["mine"] = status.st_uid == os.getuid()
seen["places"] = "".join(open(f"/proc/self/{name}").read() for name in ("environ", "cmdline", "mounts"))
""",
        secrets={"token": value},
    )
    assert (seen["secret"], seen["mode"], seen["mine"]) == (value, "0o400", True)
    assert value not in seen["places"]
    for path in sandboxes.spawner.state.rglob("*"):
        if path.is_file() and path.name != "output.log":
            assert value.encode() not in path.read_bytes(), path


def test_the_environment_is_what_was_listed(sandboxes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAWBACK_TEST_LEAK", "leaked")
    seen = sandboxes.ask("seen = dict(os.environ)", environment={"ROLE": "clerk"})
    assert seen.pop("ROLE") == "clerk"
    assert seen["HTTPS_PROXY"] == seen["http_proxy"] == "http://127.0.0.1:3128"
    assert set(seen) <= {
        "PATH", "HOME", "LANG", "TMPDIR", "USER", "SHELL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy",
        "NO_PROXY", "no_proxy", "LC_CTYPE",
    }  # fmt: skip


def test_nothing_but_the_standard_descriptors_is_open(sandboxes: Any) -> None:
    seen = sandboxes.ask(
        """
folder = os.open("/proc/self/fd", os.O_RDONLY)
seen["open"] = sorted(int(name) for name in os.listdir(folder) if int(name) != folder)
seen["first"] = sorted(os.listdir("/proc/1/fd")) if os.access("/proc/1/fd", os.R_OK) else []
"""
    )
    # The listing opens one of its own, the next after the folder's.
    assert seen["open"] in ([0, 1, 2], [0, 1, 2, 4])
    assert len(seen["first"]) <= 1  # the socket to the shim


def test_listed_paths_are_there_as_listed(sandboxes: Any, state: Path) -> None:
    for name in ("in", "out", "hidden"):
        (state / name).mkdir()
        (state / name / "file").write_text(name)
    seen = sandboxes.ask(
        f"""
for name in ("in", "out", "hidden"):
    path = "{state}/" + name
    seen[name] = [tried(lambda: open(path + "/file").read()), tried(lambda: open(path + "/new", "w").close())]
seen["folder"] = sorted(os.listdir("{state}/in"))
""",
        readable=(str(state / "in"),),
        writable=(str(state / "out"),),
    )
    assert seen["in"] == ["ok", "EACCES"] or seen["in"] == ["ok", "EROFS"]
    assert seen["out"] == ["ok", "ok"]
    assert seen["hidden"] == ["ENOENT", "ENOENT"]
    assert (state / "out" / "new").exists()


@pytest.mark.parametrize(("filesystem", "expected"), [("read-only", {"EROFS", "EACCES"}), ("read-write", {"ok"})])
def test_the_working_directory_and_tmp_follow_the_policy(
    sandboxes: Any, state: Path, filesystem: str, expected: set[str]
) -> None:
    work = state / "work"
    work.mkdir()
    seen = sandboxes.ask(
        """
seen["cwd"] = os.getcwd()
seen["work"] = tried(lambda: open("made", "w").close())
seen["tmp"] = tried(lambda: open("/tmp/made", "w").close())
""",
        workdir=str(work),
        policy=SandboxPolicy(name="test", filesystem=filesystem),
    )
    assert seen["cwd"] == str(work)
    assert seen["work"] in expected
    assert seen["tmp"] in expected


def test_decoys_are_empty_and_readable(sandboxes: Any) -> None:
    seen = sandboxes.ask(
        """
for path in ("/root/.aws/credentials", "/etc/clawback/credentials"):
    seen[path] = open(path).read()
seen["found"] = os.listdir("/root/.aws")
"""
    )
    assert seen == {"/root/.aws/credentials": "", "/etc/clawback/credentials": "", "found": ["credentials"]}
    assert not Path("/etc/clawback/credentials").exists() or Path("/etc/clawback/credentials").stat().st_size
    assert not Path("/usr/share/never-made").exists()


def test_every_layer_is_observed_and_recorded(sandboxes: Any, until: Any) -> None:
    policy = SandboxPolicy(name="test", max_memory=256 << 20, max_cpu=1.0)
    launched = sandboxes.launch("sleep", "300", policy=policy)
    record = until(lambda: (found := inventory.load(launched.record.folder)).layers and found)
    assert record == launched.record
    assert inventory.state(record) is AgentState.RUNNING
    assert record.canaries == ("/root/.aws/credentials", "/etc/clawback/credentials")
    if os.geteuid() == 0:
        assert {name for name, how in record.layers.items() if how is not Enforcement.FULL} == set()
        assert stat.S_IMODE(Path(record.folder).stat().st_mode) == 0o700
    assert {"seccomp", "landlock", "capabilities", "network", "cgroup", "memory", "pids", "cpu"} <= set(record.layers)


@root_only
def test_the_memory_limit_bites(sandboxes: Any) -> None:
    launched = sandboxes.launch(
        sys.executable, "-c", "bytearray(200 << 20)", policy=SandboxPolicy(name="test", max_memory=64 << 20)
    )
    assert launched.record.layers["memory"] is Enforcement.FULL
    assert launched.wait(30) != 0


def test_the_process_limit_bites(sandboxes: Any) -> None:
    seen = sandboxes.ask(
        """
import time
children = []
seen["end"] = "ok"
try:
    for _ in range(50):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except OSError as error:
    seen["end"] = errno.errorcode[error.errno]
seen["made"] = len(children)
""",
        policy=SandboxPolicy(name="test", max_processes=8),
    )
    assert seen == {"end": "EAGAIN", "made": 7}


def test_output_is_bounded_and_what_is_dropped_is_counted(sandboxes: Any) -> None:
    launched = sandboxes.launch("head", "-c", str(LIMIT + 12345), "/dev/zero")
    assert launched.wait(20) == 0
    assert Path(launched.record.folder, "output.log").stat().st_size == LIMIT
    assert json.loads(Path(launched.record.folder, "exit.json").read_text())["output_dropped"] == 12345


@root_only
def test_an_agent_keeps_its_outer_id_and_no_other_gets_it(sandboxes: Any) -> None:
    first, second = sandboxes.launch("true"), sandboxes.launch("true", agent="beta")
    first.wait(10)
    again = sandboxes.launch("true")
    assert first.record.uid == again.record.uid != second.record.uid


def test_common_programs_run_under_the_allow_list(sandboxes: Any) -> None:
    policy = SandboxPolicy(name="test", syscalls=SyscallPolicy(base="minimal"), filesystem="read-write")
    script = (
        "import asyncio,subprocess,threading,tempfile,ssl,json; t=threading.Thread(target=print); t.start(); t.join(); "
    )
    script += "subprocess.run(['ls','/usr'],check=True,capture_output=True); asyncio.run(asyncio.sleep(0.01))"
    assert sandboxes.launch(sys.executable, "-c", script, policy=policy).wait(30) == 0
    for program in ("/usr/bin/curl", "/usr/bin/node"):
        if Path(program).exists():
            assert sandboxes.launch(program, "--version", policy=policy).wait(30) == 0
