"""Rules and people decide; the call is made under the agent's own rights, or refused."""

from __future__ import annotations

import pytest

from clawback.enforcement import native
from clawback.errors import InvalidInput, NotFound

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(autouse=True, params=["native", "python"])
def way(request, monkeypatch):
    """Both shims keep a listener."""
    if request.param == "native" and native.way().program is None:
        pytest.skip(native.way().why)
    monkeypatch.setenv(native.VARIABLE, request.param)


def test_a_supervisor_that_is_killed_is_stood_in_for_by_either_shim(scene, policy, rule):
    scene.supervise()
    agent = scene.launch(
        "for line in sys.stdin: say([tried(os.kill, 1, 0), tried(os.getpgid, 0)])",
        policy("kill", "getpgid", rules=(rule("kill"),)),
    )
    agent.tell()
    scene.pending()
    scene.kill_supervisor()
    assert agent.hear() == ["ok", "EPERM"]
    agent.tell()
    assert agent.hear() == ["EPERM", "EPERM"]
    scene.supervise()
    agent.tell()
    scene.client.answer(scene.pending()[0]["id"], allow=True, by="x", reason="y")
    assert agent.hear() == ["ok", "ok"]


def test_hostile_arguments_fail_as_the_kernel_would_have_them(scene, policy, rule):
    scene.supervise()
    agent = scene.launch(
        """
def raw(number, *arguments):
    ctypes.set_errno(0)
    result = C.syscall(number, *map(ctypes.c_long, arguments))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result
end = C.mmap; end.restype = ctypes.c_long
page = C.mmap(None, 8192, 3, 0x22, -1, 0); C.munmap(ctypes.c_long(page + 4096), 4096)
ctypes.memset(page, 0x41, 4096); name = ctypes.create_string_buffer(b"x")
s = socket.socket(); fd = s.fileno()
say([
    raw(42, fd, 0, 16), raw(42, fd, -1, 16), raw(42, fd, 1 << 62, 16), raw(42, fd, page + 4090, 16),
    raw(42, fd, page, 0), raw(42, fd, page, 1 << 31), raw(42, fd, page, 129),
    raw(42, 9999, page, 16), raw(42, -1, page, 16),
    raw(257, -100, 0, 0, 0), raw(257, -100, page, 0, 0), raw(257, 9999, ctypes.addressof(name), 0, 0),
    raw(437, -100, page, page, 8), raw(437, -100, page, page, 24),
    raw(44, fd, page, 1 << 40, 0, page, 16), raw(316, -100, page, -100, page, 99),
])
say(tried(os.open, "/proc/self/fd/0", os.O_RDONLY))
say(tried(os.open, "/proc/1/root/etc/passwd", os.O_RDONLY))
import time; time.sleep(600)
""",
        policy("connect", "openat", "openat2", "sendto", "renameat2", rules=(rule("openat", paths=("/",)),)),
    )
    assert agent.hear() == [
        *["EFAULT"] * 4, *["EINVAL"] * 3, "EBADF", "EBADF",
        "EFAULT", "ENAMETOOLONG", "EBADF",
        "E2BIG", "ENAMETOOLONG",
        "EMSGSIZE", "ENAMETOOLONG",
    ]  # fmt: skip
    assert agent.hear() == "ELOOP"  # what the supervisor's hand has open is nobody else's to reach
    assert agent.hear() in {"ELOOP", "EACCES"}
    assert scene.client.status()["supervised"] == 1
    assert not scene.client.escalations()


def test_a_rule_allows_one_address_and_a_person_is_asked_about_another(scene, policy, rule):
    scene.supervise()
    agent = scene.launch(
        """
server = socket.socket(socket.AF_UNIX); server.bind("\\0here"); server.listen()
gateway = socket.socket(); say(tried(gateway.connect, ("127.0.0.1", 3128)))
other = socket.socket(); say(tried(other.connect, ("127.0.0.1", 3129)))
other = socket.socket(); say(tried(other.connect, ("127.0.0.1", 3130)))
""",
        policy("connect", rules=(rule("connect", addresses=("127.0.0.1:3128",)),)),
    )
    assert agent.hear() == "ok"
    (ask,) = scene.pending()
    assert ask["call"] == "connect"
    assert ask["arguments"]["address"] == "127.0.0.1:3129"
    assert ask["agent"] == "alpha"
    # Allowed, and yet the agent's own Landlock rules refuse it: nobody can allow more than the agent may do.
    answer = scene.client.answer(ask["id"], allow=True, by="operator:test(0)", reason="looks fine")
    assert answer["outcome"] == "failed: Permission denied"
    assert agent.hear() == "EACCES"
    (ask,) = scene.pending()
    assert scene.client.answer(ask["id"], allow=False, by="operator:test(0)", reason="no")["outcome"] == "denied"
    assert agent.hear() == "EPERM"
    with pytest.raises(NotFound):
        scene.client.answer(ask["id"], allow=True, by="operator:test(0)", reason="twice")
    said = [(line["allowed"], line["by"], line["arguments"]["address"]) for line in scene.decisions()]
    assert said == [
        (True, "rule 1", "127.0.0.1:3128"),
        (True, "operator:test(0)", "127.0.0.1:3129"),
        (False, "operator:test(0)", "127.0.0.1:3130"),
    ]


def test_files_open_where_a_rule_or_a_person_says_so(scene, policy, rule, tmp_path):
    scene.supervise()
    tmp_path.chmod(0o755)
    agent = scene.launch(
        """
say(open("/etc/hosts").readline())
fd = os.open("/tmp/new", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o640)
os.write(fd, b"text"); os.close(fd)
say([os.stat("/tmp/new").st_mode & 0o777, open("/tmp/new").read()])
say(tried(os.open, "/tmp/new", os.O_CREAT | os.O_WRONLY | os.O_EXCL))
say(tried(os.open, "/nowhere/at/all", os.O_RDONLY))
say(tried(os.mkdir, "/tmp/closed"))
os.symlink("/etc/passwd", "/tmp/link")
say(tried(os.open, "/tmp/link", os.O_RDONLY))
say(tried(os.rename, "/tmp/new", "/tmp/newer"))
say(open("/proc/self/comm").read().strip() if False else sorted(os.listdir("/tmp")))
""",
        policy(
            "open", "openat", "openat2", "mkdir", "rename",
            rules=(
                rule("openat", paths=("/etc/passwd",), decision="ask"),
                rule("openat", "open", paths=("/",), writes=False),
                rule("openat", paths=("/tmp",)),
                rule("mkdir", paths=("/tmp/closed",), decision="deny"),
                rule("rename", paths=("/tmp",)),
            ),
            filesystem="read-write",
        ),
    )  # fmt: skip
    assert agent.hear() == "127.0.0.1 localhost\n"
    assert agent.hear() == [0o640, "text"]
    assert agent.hear() == "EEXIST"
    assert agent.hear() == "ENOENT"
    assert agent.hear() == "EPERM"
    (ask,) = scene.pending()
    assert ask["arguments"]["path"] == "/etc/passwd"  # where the link leads
    scene.client.answer(ask["id"], allow=True, by="operator:test(0)", reason="it is public")
    assert agent.hear() == "ok"
    assert agent.hear() == "ok"
    # Beside them is what of the tree is shown below /tmp, where that is where these tests lie.
    assert {"link", "newer"} <= set(agent.hear())


def test_calls_without_memory_are_let_go_by_their_registers(scene, policy, rule, wait_for):
    scene.supervise()
    agent = scene.launch(
        """
say(tried(os.kill, os.getpid(), 0))
say(tried(os.kill, 1, 0))
say(tried(socket.socket, socket.AF_UNIX))
""",
        policy("kill", "socket", rules=(rule("kill"), rule("socket", decision="deny"))),
    )
    assert [agent.hear() for _ in range(3)] == ["ok", "ok", "EPERM"]
    # Refused first, told afterwards.
    (event,) = wait_for(lambda: [e for e in scene.events() if e["class_uid"] == 1003 and e["disposition_id"] == 2])
    assert "escalated: denied by rule 2" in event["message"]


def test_an_unanswered_question_is_refused(scene, policy):
    scene.supervise(expiry=0.3)
    agent = scene.launch("say(tried(os.kill, 1, 0))", policy("kill"))
    assert agent.hear() == "EPERM"
    (line,) = scene.decisions()  # a question's end is on disk before the agent sees it
    assert (line["allowed"], line["by"]) == (False, "no answer in time")


def test_an_agent_has_no_listener_of_its_own_and_no_way_to_the_desk(scene, policy):
    scene.supervise()
    desk = str(scene.state / "run" / "supervisor.sock")
    agent = scene.launch(
        """
program = (ctypes.c_char * 8)(6, 0, 0, 0, 0, 0, 0xff, 0x7f)
block = (ctypes.c_uint64 * 2)(1, ctypes.addressof(program))
C.prctl(38, 1, 0, 0, 0)
say([C.syscall(317, 1, 8, ctypes.byref(block)), errno.errorcode[ctypes.get_errno()]])
say(tried(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect, os.environ["DESK"]))
""",
        policy("getppid"),
        environment={"DESK": desk},
    )
    assert agent.hear() == [-1, "EPERM"]
    assert agent.hear() == "ENOENT"


def test_orders_and_answers_that_make_no_sense_are_refused(scene, policy):
    scene.supervise()
    with pytest.raises(InvalidInput):
        scene.client.attach("/etc")
    with pytest.raises(NotFound):
        scene.client.answer("esc-0", allow=True, by="x", reason="y")
