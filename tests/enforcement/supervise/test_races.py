"""What a hostile agent, a signal or a death in the middle can do to an escalated call: nothing that was not allowed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from clawback.enforcement.sandbox.escalated import Ledger
from clawback.errors import InvalidInput, NotFound

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

FLIP = """
sys.setswitchinterval(1e-5)
def flipping(buffer, offset):
    over = threading.Event()
    def flip():
        while not over.is_set():
            buffer[offset] = b"a"; buffer[offset] = b"b"
    threading.Thread(target=flip, daemon=True).start()
    return over
"""


def test_an_address_rewritten_after_the_check_reaches_nothing_forbidden(scene, policy, rule):
    scene.supervise()
    agent = scene.launch(
        FLIP
        + """
servers = {}
for name in "ab":
    servers[name] = socket.socket(socket.AF_UNIX); servers[name].bind("/tmp/" + name); servers[name].listen(4096)
address = ctypes.create_string_buffer(b"\\1\\0/tmp/a", 110)
over = flipping(address, 7)
for _ in range(2000):
    one = socket.socket(socket.AF_UNIX)
    C.connect(one.fileno(), address, 110)
    one.close()
over.set()
counts = {}
for name, server in servers.items():
    server.setblocking(False); counts[name] = 0
    while tried(server.accept) == "ok": counts[name] += 1
say(counts)
""",
        policy(
            "connect",
            rules=(rule("connect", addresses=("unix:/tmp/a",)), rule("connect", decision="deny")),
            filesystem="read-write",
        ),
    )
    counts = agent.hear()
    assert counts["b"] == 0
    assert counts["a"] > 0


def test_a_path_rewritten_or_relinked_after_the_check_opens_nothing_forbidden(scene, policy, rule):
    scene.supervise()
    agent = scene.launch(
        FLIP
        + """
for name in "ab": open("/tmp/" + name, "w").write(name)
os.symlink("a", "/tmp/l")
def read(path):
    fd = C.openat(-100, path, 0)
    if fd < 0: return "-"
    found = os.read(fd, 1).decode(); os.close(fd)
    return found
path = ctypes.create_string_buffer(b"/tmp/a")
over = flipping(path, 5)
seen = [read(path) for _ in range(2000)]
over.set()
over = threading.Event()
def relink():
    while not over.is_set():
        for name in "ba":
            os.symlink(name, "/tmp/m"); os.rename("/tmp/m", "/tmp/l")
threading.Thread(target=relink, daemon=True).start()
seen += [read(ctypes.create_string_buffer(b"/tmp/l")) for _ in range(2000)]
over.set()
say({name: seen.count(name) for name in "ab-"})
""",
        policy(
            "openat",
            rules=(
                rule("openat", paths=("/tmp/b",), writes=False, decision="deny"),
                rule("openat", paths=("/",)),
            ),
            filesystem="read-write",
        ),
    )
    counts = agent.hear()
    assert counts["b"] == 0
    assert counts["a"] > 0


def test_a_thread_killed_while_it_waits_leaves_no_question(scene, policy, wait_for):
    scene.supervise()
    agent = scene.launch(
        """
pid = os.fork()
if pid == 0:
    os.getpgid(0); os._exit(0)
sys.stdin.readline()
os.kill(pid, 9); os.waitpid(pid, 0)
say("dead")
""",
        policy("getpgid"),
    )
    (ask,) = scene.pending()
    agent.tell()
    assert agent.hear() == "dead"
    wait_for(lambda: not scene.client.escalations())
    with pytest.raises((NotFound, InvalidInput)):
        scene.client.answer(ask["id"], allow=True, by="x", reason="y")


def test_a_killed_supervisor_refuses_what_waits_and_a_new_one_takes_over(scene, policy, rule, wait_for):
    scene.supervise()
    agent = scene.launch(
        """
say("up")
for line in sys.stdin:
    say([tried(os.kill, os.getpid(), 0), tried(os.mkdir, f"/tmp/{line.strip()}"), tried(os.getpgid, 0)])
""",
        policy("kill", "mkdir", "getpgid", rules=(rule("kill", "mkdir"),), filesystem="read-write"),
    )
    assert agent.hear() == "up"
    agent.tell("one")
    scene.pending()
    scene.kill_supervisor()
    assert agent.hear() == ["ok", "ok", "EPERM"]
    agent.tell("two")
    assert agent.hear() == ["EPERM", "EPERM", "EPERM"]
    scene.supervise()
    agent.tell("three")
    (ask,) = scene.pending()
    scene.client.answer(ask["id"], allow=True, by="x", reason="y")
    assert agent.hear() == ["ok", "ok", "ok"]
    assert any("4 escalated calls were refused" in event.get("message", "") for event in scene.events())


def test_one_agents_flood_does_not_keep_another_from_its_answers(scene, policy, rule):
    scene.supervise()
    flood = scene.launch(
        """
def ask():
    while True: C.syscall(110)
for _ in range(8): threading.Thread(target=ask, daemon=True).start()
say("flooding")
sys.stdin.readline()
""",
        policy("getppid", rules=(rule("getppid"),)),
        agent="flood",
    )
    assert flood.hear() == "flooding"
    quiet = scene.launch(
        "say([tried(os.kill, 1, 0) for _ in range(200)].count('ok'))", policy("kill", rules=(rule("kill"),))
    )
    assert quiet.hear() == 200
    status = {row["agent"]: row for row in scene.client.status()["agents"]}
    assert status["flood"]["taken"] > 200


def test_a_call_that_a_signal_makes_start_over_is_made_once(scene, policy, rule):
    scene.supervise()
    agent = scene.launch(
        """
hits = [0]
def hit(*_): hits[0] += 1
signal.signal(signal.SIGALRM, hit); signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
seen = [tried(os.mkdir, f"/tmp/{n}") for n in range(300)]
seen += [tried(os.open, f"/tmp/f{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY) for n in range(300)]
signal.setitimer(signal.ITIMER_REAL, 0)
say({word: seen.count(word) for word in set(seen)})
say(hits[0])
""",
        policy("mkdir", "openat", rules=(rule("mkdir", "openat"),), filesystem="read-write"),
    )
    assert agent.hear() == {"ok": 600}
    assert agent.hear() > 20


def test_a_question_stays_the_same_over_signals(scene, policy, wait_for):
    scene.supervise()
    agent = scene.launch(
        """
hits = [0]
def hit(*_): hits[0] += 1
signal.signal(signal.SIGALRM, hit); signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
result = tried(os.getpgid, 0)
signal.setitimer(signal.ITIMER_REAL, 0)
say([result, hits[0] > 0])
""",
        policy("getpgid"),
    )
    (first,) = scene.pending()
    wait_for(lambda: scene.client.status()["agents"][0]["taken"] > 10)
    (ask,) = scene.client.escalations()
    assert ask["id"] == first["id"]

    def allowed() -> bool:
        try:
            return scene.client.answer(ask["id"], allow=True, by="x", reason="y")["outcome"] == "let go"
        except InvalidInput:
            return False  # just then it was interrupted

    wait_for(allowed)
    assert agent.hear() == ["ok", True]


def test_an_agent_whose_call_waits_freezes_and_finds_it_refused_under_a_hold(scene, policy, wait_for):
    scene.supervise()
    agent = scene.launch("say(tried(os.getpgid, 0))", policy("getpgid"))
    scene.pending()
    group = Path(agent.record.cgroup)
    if not agent.record.cgroup:
        pytest.skip("no cgroup to freeze")
    (group / "cgroup.freeze").write_text("1")
    wait_for(lambda: "frozen 1" in (group / "cgroup.events").read_text(), seconds=5)
    holds = scene.state / "holds"
    holds.mkdir(exist_ok=True)
    (holds / "alpha.json").write_text(json.dumps({"agent": "alpha", "levels": [1]}))
    wait_for(lambda: not scene.client.escalations())
    (group / "cgroup.freeze").write_text("0")
    assert agent.hear() == "EPERM"


def test_an_order_refuses_everything_until_it_is_taken_back(scene, policy, rule, wait_for):
    scene.supervise()
    agent = scene.launch(
        """
threading.Thread(target=lambda: say(C.getpgid(0)), daemon=True).start()
for line in sys.stdin: say(tried(os.kill, 1, 0))
""",
        policy("kill", "getpgid", rules=(rule("kill"),)),
    )
    scene.pending()
    agent.tell()
    assert agent.hear() == "ok"
    assert scene.client.refuse("alpha", by="core", reason="restrict")["refused"] is True
    assert agent.hear() == -1  # what waited for a person
    agent.tell()
    assert agent.hear() == "EPERM"
    scene.kill_supervisor()
    scene.supervise()
    agent.tell()
    assert agent.hear() == "EPERM"  # it outlives the supervisor
    assert scene.client.decide("alpha", by="core", reason="release")["refused"] is False
    agent.tell()
    assert agent.hear() == "ok"


def test_a_hand_that_is_killed_is_made_anew_a_few_times_and_then_not_at_once(scene, policy, rule, wait_for):
    scene.supervise()
    agent = scene.launch(
        'for line in sys.stdin: say(tried(os.mkdir, "/tmp/" + line.strip()))',
        policy("mkdir", rules=(rule("mkdir"),), filesystem="read-write"),
    )

    def hands() -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "comm").read_text() == "clawback-hand\n" and _inside(folder, agent.record.pid):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    said = []
    lost = 0
    began = time.monotonic()
    for number in range(7):
        agent.tell(str(number))
        said.append(agent.hear())
        for pid in hands():
            os.kill(pid, signal.SIGKILL)
            lost += 1
        # A call that met a dead hand would be refused for that, and use up none.
        wait_for(lambda: scene.client.status("alpha")["agents"][0].get("hands lost", 0) >= lost)  # noqa: B023 - at once
    assert said[0] == "ok"
    assert set(said) <= {"ok", "EPERM"}
    if time.monotonic() - began > 10:
        pytest.skip("this machine was too busy to lose six within ten seconds")
    assert said[-1] == "EPERM"  # five within ten seconds


def _inside(folder: Path, pid: int) -> bool:
    return (folder / "ns" / "pid").stat().st_ino == Path(f"/proc/{pid}/ns/pid").stat().st_ino


def test_a_ledger_tells_what_was_in_hand():
    ledger = Ledger.make()
    other = Ledger(os.dup(ledger.fd))
    try:
        assert all(ledger.take(number) for number in range(1, 65))
        assert not ledger.take(65)
        ledger.answered(7)
        last, left = other.left()
        assert last == 65
        assert sorted(left) == [number for number in range(1, 65) if number != 7]
        assert other.left() == (65, [])
    finally:
        ledger.close()
        other.close()
