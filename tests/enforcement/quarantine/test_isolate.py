"""Isolated, an agent's upload dies and its every attempt to connect fails at once; released, it connects again."""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path

import pytest

from clawback.enforcement.kernel import netlink
from clawback.enforcement.quarantine import freeze, inside, isolate, tree
from clawback.model import Enforcement

pytestmark = pytest.mark.kernel

# 0: bytes sent, 1: the errno that ended the upload, 2: attempts since, 3: the last attempt's errno, 4: successes since
UPLOAD = """
def upload():
    with socket.create_connection(("127.0.0.1", 3128)) as link:
        while True:
            board[0] += link.send(bytes(65536))
try:
    upload()
except OSError as error:
    board[1] = error.errno
while True:
    last = code(socket.create_connection, ("127.0.0.1", 3128))
    board[4] += last == 0
    board[3] = last
    board[2] += 1
"""

HOARD = """
kept = []
for _ in range(50):
    kept.append(socket.create_connection(("127.0.0.1", 3128)))
for _ in range(20):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(("127.0.0.1", 53))
    kept.append(one)
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.connect(("::1", 53))
    kept.append(six)
board[0] = len(kept)
while True: time.sleep(60)
"""


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_an_established_upload_dies_and_nothing_new_starts(make, frozen):
    made = make(UPLOAD)
    make.wait_until(lambda: made.gateway.received > 1 << 22, "4 MiB have come")
    if frozen:
        assert freeze.apply(made.box).enforcement is Enforcement.FULL
    result = isolate.apply(made.box)
    assert result.enforcement is Enforcement.FULL, result
    assert "127.0.0.1 ENETUNREACH" in result.observed
    make.wait_until(lambda: made.gateway.aborted == 1, "the gateway's side is reset")
    received = made.gateway.received
    if frozen:
        assert freeze.release(made.box).enforcement is Enforcement.NONE
    make.wait_until(lambda: made.board[2] > 100, "it tried again and again")
    assert made.board[1] in {errno.ECONNABORTED, errno.EPIPE}
    assert made.board[3] == errno.ENETUNREACH
    assert made.board[4] == 0
    assert made.gateway.received == received
    assert isolate.probe(made.box).enforcement is Enforcement.FULL


def test_release_opens_the_way_again(make):
    made = make(UPLOAD)
    make.wait_until(lambda: made.gateway.received > 0, "bytes come")
    assert isolate.apply(made.box).enforcement is Enforcement.FULL
    make.wait_until(lambda: made.board[2] > 0, "it tried")
    released = isolate.release(made.box)
    assert released.enforcement is Enforcement.NONE, released
    assert "reaches the gateway" in released.observed
    make.wait_until(lambda: made.board[4] > 0, "the agent connects again")
    assert isolate.probe(made.box).enforcement is not Enforcement.FULL
    assert isolate.apply(made.box).enforcement is Enforcement.FULL
    assert isolate.apply(made.box).enforcement is Enforcement.FULL


def test_an_open_sandbox_is_not_said_to_be_isolated(make):
    made = make(UPLOAD)
    make.wait_until(lambda: made.gateway.received > 0, "bytes come")
    result = isolate.probe(made.box)
    assert result.enforcement is Enforcement.NONE
    assert any("127.0.0.1" in line for line in result.missing)


def test_every_socket_but_the_gateways_listener_is_destroyed(make):
    made = make(HOARD)
    make.wait_until(lambda: made.board[0] > 0, "the sockets are there")
    assert isolate.apply(made.box).enforcement is Enforcement.FULL
    with inside.opened(made.box, (inside.DIAG,)) as (diag,):
        left = netlink.sockets(diag)
    assert not [one for one in left if one.connected]
    assert {one.local_port for one in left if one.listening} == {3128}


def test_the_callers_own_namespace_is_not_touched(make):
    made = make(UPLOAD)
    before = Path("/proc/thread-self/ns/net").stat().st_ino
    isolate.apply(made.box)
    isolate.release(made.box)
    assert Path("/proc/thread-self/ns/net").stat().st_ino == before
    assert Path("/proc/self/ns/net").stat().st_ino == before


def test_another_process_with_the_number_is_left_alone(make):
    from dataclasses import replace

    made = make(UPLOAD)
    make.wait_until(lambda: made.gateway.received > 0, "bytes come")
    result = isolate.apply(replace(made.box, start_ticks=made.box.start_ticks + 1))
    assert result.enforcement is Enforcement.NONE
    before = made.gateway.received
    make.wait_until(lambda: made.gateway.received > before, "bytes still come")


def test_an_ended_sandbox_has_no_network(make):
    made = make("pass")
    make.wait_until(lambda: tree.gone(made.box), "it ends")
    assert isolate.apply(made.box).enforcement is Enforcement.FULL
    assert isolate.release(made.box).enforcement is Enforcement.NONE


def settled(made) -> bool:
    before = made.gateway.accepted
    time.sleep(0.06)  # longer than the gateway's own turn
    return made.gateway.accepted == before


def test_an_agent_that_keeps_connecting_never_succeeds_after_the_cut(make):
    made = make(
        """
def again(n):
    while True:
        board[n] = code(socket.create_connection, ("127.0.0.1", 3128))
        board[n + 8] += 1
for n in range(4): threading.Thread(target=again, args=(n,)).start()
"""
    )
    made.moves(8)
    for _ in range(10):
        cut = isolate.apply(made.box, patience=10.0)
        assert cut.enforcement is Enforcement.FULL, cut
        for n in range(4):
            made.moves(n + 8)
            made.moves(n + 8)
        assert [made.board[n] for n in range(4)] == [errno.ENETUNREACH] * 4
        # Connections that waited in the listener's queue are accepted still, and are dead; then none comes any more.
        make.wait_until(lambda: settled(made), "the queue is empty")
        accepted = made.gateway.accepted
        for n in range(4):
            made.moves(n + 8)
        assert made.gateway.accepted == accepted
        assert isolate.release(made.box).enforcement is Enforcement.NONE
        make.wait_until(lambda: made.board[0] == 0, "connects again")


def test_loopback_raised_behind_its_back_is_seen(make):
    made = make(UPLOAD)
    make.wait_until(lambda: made.gateway.received > 0, "bytes come")
    isolate.apply(made.box)
    with inside.opened(made.box, (inside.ROUTE,)) as (route,):
        for link in netlink.links(route):
            netlink.set_link(route, link.index, up=True)
    make.wait_until(lambda: made.board[4] > 0, "the agent connects again")
    seen = isolate.probe(made.box)
    assert seen.enforcement is Enforcement.NONE
    assert "address 127.0.0.1/8 is still there" in seen.missing
    assert any("connect from inside to 127.0.0.1: connected" in line for line in seen.missing), seen
    assert (seen.counts["addresses"], seen.counts["uncut"]) == (2, len(seen.missing))
    assert isolate.apply(made.box).enforcement is Enforcement.FULL


OTHER_WAYS = """
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one: one.sendto(b"x", ("127.0.0.1", 53))
def dns():
    try: socket.getaddrinfo("example.com", 443)
    except socket.gaierror as error: raise OSError(200 - error.errno, "no answer") from None
def raw(): socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
def packet(): socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
def vsock(): socket.socket(40, socket.SOCK_STREAM).close()
def route():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as one:
        one.send(struct.pack("=IHHIIBxHiII", 32, 16, 5, 1, 0, 0, 0, 1, 1, 1))  # RTM_NEWLINK: loopback up
        if (number := -struct.unpack_from("=i", one.recv(4096), 16)[0]): raise OSError(number, "refused")
def abstract():
    with socket.socket(socket.AF_UNIX) as one: one.connect("\\0clawback-test-outside")
while True:
    for n, call in enumerate((udp, dns, raw, packet, vsock, route, abstract)):
        number = code(call)
        if number: board[n + 8] = number
        else: board[n] += 1
    board[20] += 1
"""


def test_no_other_way_leads_out(make):
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind("\0clawback-test-outside")
        outside.listen()
        made = make(OTHER_WAYS)
        made.moves(20)
        assert isolate.apply(made.box).enforcement is Enforcement.FULL
        made.moves(20)
        before = [made.board[n] for n in range(7)]
        made.moves(20)
        made.moves(20)
        assert [made.board[n] for n in range(7)] == before
        assert made.board[8] == errno.ENETUNREACH
        assert all(made.board[n + 8] for n in range(7))
