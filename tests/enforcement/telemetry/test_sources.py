"""Kernel records → events, from bytes as the kernel writes them."""

from __future__ import annotations

import struct

import pytest

from clawback.enforcement.kernel import process_events
from clawback.enforcement.kernel.audit import LANDLOCK_ACCESS, LANDLOCK_DOMAIN, SECCOMP, SYSCALL, parse
from clawback.enforcement.telemetry.denials import Denials
from clawback.enforcement.telemetry.roster import Roster, Tracked
from clawback.enforcement.telemetry.writer import TelemetryWriter
from clawback.model import Disposition, FileActivity, KernelActivity, Source
from clawback.model.ocsf import parse_line

BASE = 3_000_000
STAMP = "audit(1795160830.377:{serial}): "
SECCOMP_TEXT = (
    STAMP + "auid=4294967295 uid={uid} gid=0 ses=4294967295 pid=6705 comm={comm} exe={exe} "
    "sig=0 arch=c000003e syscall={number} compat=0 ip=0x7fb55b528dc7 code={code}"
)


def tracked(instance: str = "i1", *, uid: int = BASE, since_ns: int = 0) -> Tracked:
    return Tracked(agent="a", instance=instance, uid=uid, pid=1, policy="p", policy_version=3, since_ns=since_ns)


@pytest.fixture
def world(tmp_path):
    writer = TelemetryWriter(tmp_path, Source.SANDBOX)
    roster = Roster(BASE)
    yield (
        Denials(roster, writer),
        roster,
        lambda: [parse_line(line, Source.SANDBOX) for line in writer.path.read_bytes().split(b"\n")[:-1]],
    )
    writer.close()


def seccomp(*, uid=BASE, comm='"python"', exe='"/usr/bin/python3"', number=101, code="0x50001", serial=2):
    text = SECCOMP_TEXT.format(uid=uid, comm=comm, exe=exe, number=number, code=code, serial=serial)
    return parse(SECCOMP, text.encode() + b"\0")


def test_a_seccomp_record(world):
    denials, roster, events = world
    roster.add(tracked())
    denials.take(seccomp())
    (event,) = events()
    assert isinstance(event, KernelActivity)
    assert (event.syscall, event.number, event.pid, event.exe) == ("ptrace", 101, 6705, "/usr/bin/python3")
    assert (event.agent, event.instance, event.policy, event.policy_version) == ("a", "i1", "p", 3)
    assert event.disposition is Disposition.BLOCKED
    assert event.time_ns == 1795160830_377_000_000


def test_a_logged_call_is_not_called_blocked(world):
    denials, roster, events = world
    roster.add(tracked())
    denials.take(seccomp(code="0x7ffc0000"))
    assert events()[0].disposition is Disposition.LOGGED


def test_names_that_an_agent_chose_forge_no_field(world):
    denials, roster, events = world
    roster.add(tracked())
    hidden = b'x uid=0 pid=1 "'.hex().upper()
    denials.take(seccomp(comm=hidden, exe=b"/tmp/\xff uid=0".hex().upper()))
    (event,) = events()
    assert (event.pid, event.agent) == (6705, "a")
    assert event.exe == "/tmp/\\xff uid=0"


def test_somebody_elses_denials_are_not_ours(world):
    denials, roster, events = world
    roster.add(tracked())
    denials.take(seccomp(uid=0))
    denials.take(seccomp(uid=BASE - 1))
    assert events() == []


def test_what_happens_before_the_instance_is_known_waits_for_it(world):
    denials, roster, events = world
    denials.take(seccomp())
    denials.take(seccomp(uid=BASE + 1))
    assert events() == []
    roster.add(tracked())
    assert [event.instance for event in events()] == ["i1"]


def test_a_late_denial_of_the_old_instance_is_not_held_against_the_new_one(world):
    denials, roster, events = world
    roster.add(tracked("old"))
    roster.expect(BASE)
    denials.take(seccomp())  # read while the new one is being started
    roster.add(tracked("new", since_ns=1795160830_400_000_000))
    denials.take(seccomp())  # read after it was
    assert [event.instance for event in events()] == ["old", "old"]


@pytest.mark.parametrize(
    "text", [b"", b"audit(", b"audit(x.y:z): uid=1", b"\xff" * 9000, b"audit(1.2:3): ===", b"type=1326"]
)
def test_records_that_are_none(world, text):
    denials, _, events = world
    record = parse(SECCOMP, text)
    if record is not None:
        denials.take(record)
    assert events() == []


def landlock(serial: int, domain: str = "195ba459b"):
    text = STAMP.format(serial=serial) + f'domain={domain} blockers=fs.read_file path="/etc/shadow" dev="vda" ino=7'
    return parse(LANDLOCK_ACCESS, text.encode())


def domain_record(serial: int, uid: int = BASE):
    text = STAMP.format(serial=serial) + (
        f'domain=195ba459b status=allocated mode=enforcing pid=77 uid={uid} exe="/usr/bin/python3" comm="python3"'
    )
    return parse(LANDLOCK_DOMAIN, text.encode())


def test_landlock_is_joined_to_its_system_call(world):
    denials, roster, events = world
    roster.add(tracked())
    denials.take(landlock(9))
    text = STAMP.format(serial=9) + f'arch=c000003e syscall=257 success=no pid=88 uid={BASE} exe="/bin/cat"'
    denials.take(parse(SYSCALL, text.encode()))
    (event,) = events()
    assert isinstance(event, FileActivity)
    assert (event.path, event.access, event.pid, event.exe) == ("/etc/shadow", "read_file", 88, "/bin/cat")
    assert event.blocked


def test_landlock_is_joined_to_its_domain_where_no_system_call_is_recorded(world):
    denials, roster, events = world
    roster.add(tracked())
    denials.take(landlock(9))
    denials.take(domain_record(9))
    denials.flush()
    denials.take(landlock(10))
    denials.flush()
    assert [event.pid for event in events()] == [77, 77]


def test_landlock_of_an_unknown_domain_is_dropped(world):
    denials, roster, events = world
    roster.add(tracked())
    denials.take(landlock(9, domain="f"))
    denials.flush()
    assert events() == []


def connector(what: int, *words: int, index: int = 1) -> bytes:
    body = struct.pack("=IIQ", what, 0, 0) + struct.pack(f"={len(words)}I", *words)
    message = struct.pack("=IIIIHH", index, 1, 0, 0, len(body), 0) + body
    return struct.pack("=IHHII", 16 + len(message), 3, 0, 0, 0) + message


def test_process_events():
    fork = process_events.parse(connector(1, 10, 10, 20, 20))
    assert (fork.what, fork.pid, fork.parent) == (process_events.What.FORK, 20, 10)
    assert process_events.parse(connector(1, 10, 10, 21, 20)) is None  # a thread
    assert process_events.parse(connector(2, 20, 20)).pid == 20
    ended = process_events.parse(connector(0x80000000, 20, 20, 7 << 8, 17, 10, 10))
    assert (ended.pid, ended.exit_code) == (20, 7)
    assert process_events.parse(connector(0x80000000, 20, 20, 9, 17, 10, 10)).exit_code == 137
    assert process_events.parse(connector(2, 20, 20, index=2)) is None
    assert process_events.parse(b"\0" * 12) is None
    assert process_events.parse(connector(1, 10)) is None
