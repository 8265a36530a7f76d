"""What the kernel tells of denials: registers, floods kept apart by agent, and refusals that audit does not name."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from clawback.enforcement.kernel import bpf
from clawback.enforcement.kernel.bpf import R0, R10, SOCKET_FILTER, Code, Map
from clawback.enforcement.kernel.call_trace import CallTrace
from clawback.enforcement.kernel.syscalls import NUMBER
from clawback.model import Disposition, FileActivity, KernelActivity, NetworkActivity

pytestmark = pytest.mark.kernel

FLOOD = 50_000
always = pytest.mark.parametrize("heard", ["on"], indirect=True)
never = pytest.mark.parametrize("heard", ["off"], indirect=True)


def is_denial(event) -> bool:
    return isinstance(event, KernelActivity)


def with_registers(event) -> bool:
    return isinstance(event, KernelActivity) and bool(event.arguments)


def often(call, *what) -> None:
    """A caller that loses the processor amid its call, on a busy machine, is reported without registers."""
    for _ in range(20):
        call(*what)
        time.sleep(0.01)


def attached(heard) -> None:
    """The tracer is on; a denial before that has no registers."""
    trace = heard.telemetry._from.trace
    end = time.monotonic() + 10
    while not trace.attached:
        assert time.monotonic() < end
        time.sleep(0.002)


@always
def test_a_denial_has_its_registers_and_who_made_it(heard):
    agent = heard.track(1)
    attached(heard)
    words = (0x1122334455667788, -1, 3, 4, 5, 6)
    pid = heard.live(1, lambda call: often(call, "acct", *words), "acct")
    event = heard.wait_for(agent, with_registers)
    assert (event.syscall, event.number, event.architecture) == ("acct", NUMBER["acct"], os.uname().machine)
    assert event.arguments == (0x1122334455667788, 2**64 - 1, 3, 4, 5, 6)
    assert (event.pid, event.disposition) == (pid, Disposition.BLOCKED)
    assert event.address > 0
    assert Path(event.exe).name.startswith("python")
    assert event.comm


def test_the_first_denial_switches_the_tracer_on_for_the_next(heard):
    agent = heard.track(1)
    assert not heard.telemetry._from.trace.attached
    heard.live(1, lambda call: call("acct", 1), "acct")
    assert heard.wait_for(agent, is_denial).arguments == ()
    attached(heard)
    heard.live(1, lambda call: often(call, "acct", 7), "acct")
    assert heard.wait_for(agent, with_registers).arguments[0] == 7


def test_a_denial_is_news_if_the_agent_has_run_for_72_hours_without_it(heard):
    old, new = heard.track(1), heard.track(2, since_ns=time.time_ns() - 1_000_000_000)
    for number in (1, 2):
        heard.live(number, lambda call: call("acct", 1), "acct")
    assert heard.wait_for(old, is_denial).novel
    assert not heard.wait_for(new, is_denial).novel


@never
def test_without_the_tracer_denials_come_all_the_same(heard):
    agent = heard.track(1)
    heard.live(1, lambda call: call("acct", 1), "acct")
    event = heard.wait_for(agent, is_denial)
    assert (event.syscall, event.arguments) == ("acct", ())
    assert heard.telemetry.sources["registers"].startswith("off")


def test_a_flood_is_cut_in_the_kernel_counted_to_the_last_and_hides_no_other_call(heard):
    loud, quiet = heard.track(1), heard.track(2)

    def flood(call) -> None:
        for _ in range(FLOOD):
            call("acct", 0)
        call("swapon", 0)

    heard.live(1, flood, "acct", "swapon")
    heard.live(2, lambda call: call("acct", 0), "acct")
    heard.wait_for(quiet, is_denial)
    heard.wait_for(loud, lambda event: is_denial(event) and event.syscall == "swapon")
    heard.telemetry.overflowed()
    written = sum(is_denial(event) for event in heard.events(loud))
    assert written < FLOOD // 10
    assert heard.telemetry.writer.take_lost(loud) == FLOOD + 1 - written
    assert heard.telemetry.writer.take_lost(quiet) == 0
    assert heard.telemetry.writer.losses == {"rate": FLOOD + 1 - written}
    assert heard.telemetry.writer.violations.last_hour(loud) == FLOOD + 1


def test_made_up_numbers_are_one_call(heard):
    """Else an agent that tries numbers without end would have each of them reported as news."""
    agent = heard.track(1)

    def flood(_call) -> None:
        import ctypes

        libc = ctypes.PyDLL(None)
        for number in range(20_000):
            libc.syscall(ctypes.c_long(0x40000000 + number))  # x32, which the filter refuses

    heard.live(1, flood, "acct")
    heard.wait_for(agent, is_denial)
    heard.telemetry.overflowed()
    assert sum(is_denial(event) for event in heard.events(agent)) < 2000
    assert heard.telemetry.writer.take_lost(agent) > 15_000


@always
def test_a_refused_file_is_reported_with_its_path_once(heard):
    agent = heard.track(1)
    attached(heard)

    def read(_call) -> None:
        for _ in range(5):
            try:
                os.close(os.open("/etc/shadow", os.O_RDONLY))
            except PermissionError:
                pass

    pid = heard.live(1, read)
    event = heard.wait_for(agent, lambda event: isinstance(event, FileActivity))
    assert (event.path, event.access, event.pid) == ("/etc/shadow", "openat", pid)
    assert event.blocked
    heard.live(1, read)
    heard.live(1, lambda call: call("acct", 1), "acct")
    heard.wait_for(agent, is_denial)
    assert sum(isinstance(event, FileActivity) for event in heard.events(agent)) == 1


@always
def test_a_raw_connection_without_a_route_is_reported_with_its_destination(heard):
    agent = heard.track(1)
    attached(heard)

    def connect(call) -> None:
        call("unshare", 0x10000000 | 0x40000000)  # a user and a network namespace, in which there is no route
        for family, host in ((socket.AF_INET, "192.0.2.7"), (socket.AF_INET6, "2001:db8::7")):
            with socket.socket(family, socket.SOCK_STREAM) as link:
                link.connect_ex((host, 443))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            try:
                link.sendto(b"x", ("192.0.2.8", 53))
            except OSError:
                pass

    heard.live(1, connect)
    for host, port in (("192.0.2.7", 443), ("2001:db8::7", 443), ("192.0.2.8", 53)):
        event = heard.wait_for(agent, lambda one, host=host: isinstance(one, NetworkActivity) and one.host == host)
        assert (event.port, event.disposition, event.activity_id) == (port, Disposition.BLOCKED, NetworkActivity.REFUSE)


@always
def test_somebody_elses_refusals_are_not_looked_at(heard):
    heard.track(1)
    attached(heard)
    child = os.fork()
    if child == 0:
        os.setresuid(heard.base - 1, heard.base - 1, heard.base - 1)
        try:
            os.open("/etc/shadow", os.O_RDONLY)
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert heard.telemetry._from.trace.counted() == {}


def test_the_tracer_stops_with_its_descriptors():
    if os.geteuid() != 0:
        pytest.skip("eBPF is root's")
    trace = CallTrace(range(1 << 28, (1 << 28) + 10))
    trace.attach()
    trace.attach()
    assert trace.attached
    trace.detach()
    assert not trace.attached
    trace.close()


def test_a_program_that_the_kernel_refuses_says_why():
    if os.geteuid() != 0:
        pytest.skip("eBPF is root's")
    with pytest.raises(OSError, match=r"bad: .*R10"):
        bpf.load(SOCKET_FILTER, Code().load(8, R0, R10, 64).leave(), name="bad")


def test_maps_keep_what_is_put():
    if os.geteuid() != 0:
        pytest.skip("eBPF is root's")
    kept = Map("hash", key=4, value=8, entries=4, name="kept")
    try:
        kept.put(b"key1", b"12345678")
        kept.put(b"key2", b"abcdefgh")
        assert dict(kept.items()) == {b"key1": b"12345678", b"key2": b"abcdefgh"}
        assert kept.get(b"none") is None
        kept.delete(b"key1")
        kept.delete(b"key1")
        assert kept.get(b"key1") is None
    finally:
        kept.close()
