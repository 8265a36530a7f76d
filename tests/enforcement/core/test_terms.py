"""Exceptions of an isolation and a restriction: ordered, kept, narrowed and widened with the orders that make them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawback.enforcement.core.holds import Holds
from clawback.enforcement.core.terms import Terms, checked, terms
from clawback.enforcement.quarantine import holder, responders
from clawback.errors import InvalidInput
from clawback.model import Enforcement, Level, Order, Selector, SelectorKind

BY = {"reason": "r", "by": "tester"}
ASK = """
import socket, sys, time
while True:
    said = []
    for goal in sys.argv[1:]:
        try:
            with socket.create_connection(("127.0.0.1", 3128), 2) as link:
                link.sendall(f"CONNECT {goal} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
                said.append(link.recv(4096)[9:12].decode() or "end")
        except OSError as error:
            said.append("error")
    print(*said, flush=True)
    time.sleep(0.01)
"""
OPEN = """
import time
while True:
    try: open("/usr/lib/os-release").close(); said = "open"
    except OSError: said = "refused"
    print(said, flush=True)
    time.sleep(0.01)
"""


def order(*levels: Level, **more) -> Order:
    return Order(levels=levels, **{"reason": "r", "by": "b", "uid": 0, **more})


def test_open_is_what_each_order_leaves_open():
    one = order(Level.ISOLATE, allow=("192.0.2.1:1", "192.0.2.2:2"))
    two = order(Level.ISOLATE, Level.RESTRICT, allow=("192.0.2.2:2",), readable=("/usr/lib", "/etc/ssl/certs"))
    wide = order(Level.RESTRICT, readable=("/usr", "/etc/ssl"))
    assert terms(()) == Terms()
    assert terms([one]).allow == ("192.0.2.1:1", "192.0.2.2:2")
    assert terms([one, two, wide]) == Terms(("192.0.2.2:2",), ("/usr/lib", "/etc/ssl/certs"))
    assert terms([one, two, order(Level.ISOLATE)]).allow == ()
    assert terms([wide, order(Level.RESTRICT, readable=("/usrlocal",))]).readable == ()
    assert terms([one, order(Level.FREEZE)]).allow == one.allow


@pytest.mark.parametrize(
    ("level", "allow", "readable", "words"),
    [
        (Level.FREEZE, ("192.0.2.1:1",), None, "isolate alone"),
        (Level.SEAL, None, ("/usr",), "restrict alone"),
        (Level.ISOLATE, ("example.com:443",), None, "no address and port"),
        (Level.ISOLATE, ("0.0.0.0:443",), None, "no one's"),
        (Level.ISOLATE, tuple(f"192.0.2.1:{n}" for n in range(1, 18)), None, "17 destinations"),
        (Level.RESTRICT, None, ("usr",), "no absolute path"),
        (Level.RESTRICT, None, ("/usr/../etc",), "no absolute path"),
        (Level.RESTRICT, None, ("/usr\n",), "no absolute path"),
        (Level.RESTRICT, None, ("/",), "everything"),
        (Level.RESTRICT, None, tuple(f"/{n}" for n in range(17)), "17 paths"),
    ],
)
def test_what_is_no_exception_or_too_wide_is_refused(level, allow, readable, words):
    with pytest.raises(InvalidInput, match=words):
        checked(level, allow, readable)


def test_the_same_holder_changes_them_and_saying_nothing_leaves_them(tmp_path):
    holds = Holds(tmp_path)
    holds.place("a", order(Level.ISOLATE, allow=("192.0.2.1:1",)))
    holds.place("a", order(Level.RESTRICT, readable=("/usr",)))
    assert terms(Holds(tmp_path).get("a").orders) == Terms(("192.0.2.1:1",), ("/usr",))
    holds.place("a", order(Level.ISOLATE, allow=()))
    assert terms(Holds(tmp_path).get("a").orders) == Terms((), ("/usr",))


@pytest.fixture
def responder() -> Iterator[str]:
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                door.accept()[0].close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{door.getsockname()[1]}"
    door.shutdown(socket.SHUT_RDWR)
    door.close()
    thread.join()


def says(core, out: int, words: str) -> None:
    """Its next lines but one become these words."""

    def heard() -> bool:
        data = os.read(out, 65536) if select.select([out], [], [], 0.2)[0] else b""
        return data.endswith(b"\n") and data.split(b"\n")[-2].decode() == words

    core.until(heard, seconds=20, why=f"the agent never says {words!r}")


@pytest.mark.kernel
@pytest.mark.slow
def test_a_responder_stays_reachable_for_as_long_as_every_order_lets_it(core, make_spec, responder):
    elsewhere = "127.0.0.1:9"
    goals = f"import sys; sys.argv[1:] = [{responder!r}, {elsewhere!r}]\n"
    info, out = core.launch(goals + ASK)
    (box,) = core.records()
    result = core.client.contain(info.agent, Level.ISOLATE, allow=[responder], **BY)
    assert f"{responder} 200" in result.observed, result
    assert result.counts["uncut"] == 0
    says(core, out, "200 403")
    assert core.client.agent(info.agent).hold.orders[0].allow == (responder,)

    core.end(signal.SIGKILL)
    os.kill(responders._record(box)["pid"], signal.SIGKILL)
    core.start()  # asserts it anew, relay and all
    says(core, out, "200 403")

    halt = core.client.halt(Selector(kind=SelectorKind.ALL), Level.ISOLATE, **BY).halt  # lets nobody through
    core.until(lambda: not any(one.pending for one in core.client.halt_report(halt.id).agents))
    assert responders.ordered(box) == ()
    core.client.lift(halt.id, **BY)
    says(core, out, "200 403")

    core.client.contain(info.agent, Level.ISOLATE, incident="INC-1", reason="r", by="another")
    says(core, out, "error error")
    core.client.release(info.agent, levels=[Level.ISOLATE], incident="", everyone=True, **BY)
    assert responders.ordered(box) == ()
    assert core.client.probe(info.agent, Level.ISOLATE).enforcement is not Enforcement.FULL


@pytest.mark.kernel
@pytest.mark.slow
def test_a_path_stays_readable_through_a_restart_and_no_longer_than_ordered(core):
    info, out = core.launch(OPEN)
    (box,) = core.records()
    result = core.client.contain(info.agent, Level.RESTRICT, readable=["/usr/lib/os-release"], **BY)
    if not Path(box.folder, holder.RECORD).exists():
        pytest.skip(f"this host refuses no opens: {result.missing}")
    says(core, out, "open")
    core.end(signal.SIGKILL)
    core.start()
    says(core, out, "open")
    core.client.contain(info.agent, Level.RESTRICT, readable=[], **BY)
    says(core, out, "refused")


@pytest.mark.kernel
def test_a_wrong_exception_orders_nothing(shared):
    info, _ = shared.launch("import time; time.sleep(60)")
    with pytest.raises(InvalidInput, match="allow"):
        shared.client.contain(info.agent, Level.ISOLATE, allow=["everywhere"], **BY)
    assert shared.client.agent(info.agent).hold is None
    shared.client.contain(info.agent, Level.STOP, **BY)
    shared.client.release(info.agent, **BY)
