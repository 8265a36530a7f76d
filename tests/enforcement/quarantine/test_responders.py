"""Isolated but for responders: what is on the list is reached, everything else is not, and nothing fails open."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import pytest

from clawback.enforcement.kernel import capabilities
from clawback.enforcement.quarantine import ladder, responders, tree
from clawback.errors import InvalidInput
from clawback.model import Enforcement, Level

pytestmark = pytest.mark.kernel
GATED = pytest.mark.skipif(not capabilities.effective(capabilities.SYS_ADMIN), reason="entering namespaces needs root")

# 0 rounds; per destination from 1: echoes that came back, and from 5 the last status
ASK = """
goals = sys.argv[2:] or open(os.path.dirname(sys.argv[1]) + "/goals").read().split()
def ask(n, goal):
    try: tried(n, goal)
    except TimeoutError: raise OSError(errno.ETIMEDOUT, "no answer") from None
def tried(n, goal):
    with socket.create_connection(("127.0.0.1", 3128), 2) as link:
        link.sendall(f"CONNECT {goal} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
        answer = link.recv(4096)
        board[n + 5] = int(answer[9:12] or b"0")
        if board[n + 5] == 200:
            link.sendall(b"hello")
            board[n + 1] += link.recv(5) == b"hello"
while True:
    for n, goal in enumerate(goals): board[n + 10] = code(ask, n, goal) or 0
    board[0] += 1
"""


@pytest.fixture
def echo():
    """Two servers outside; their addresses."""
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]

    answered: list[threading.Thread] = []

    def answer(link):
        with link, contextlib.suppress(ConnectionError):
            while data := link.recv(4096):
                link.sendall(data)

    def serve(door):
        while True:
            try:
                link, _ = door.accept()
            except OSError:
                return
            answering = threading.Thread(target=answer, args=(link,))
            answering.start()
            answered.append(answering)

    threads = [threading.Thread(target=serve, args=(door,)) for door in doors]
    for thread in threads:
        thread.start()
    yield [f"127.0.0.1:{door.getsockname()[1]}" for door in doors]
    for door in doors:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
    for thread in (*threads, *answered):
        thread.join()


def start(make, goals):
    """An agent whose gateway has let go of it, as the core has it do."""
    made = make("while not os.path.exists(os.path.dirname(sys.argv[1]) + '/goals'): time.sleep(0.01)\n" + ASK)
    made.gateway.stopping.set()
    for thread in made.gateway.threads:
        thread.join()
    from pathlib import Path

    folder = Path(made.box.folder).parents[2] / made.box.agent
    (folder / ".goals").write_text(" ".join(goals))
    (folder / ".goals").rename(folder / "goals")
    return made


@GATED
def test_what_is_allowed_is_reached_and_nothing_else(make, echo):
    made = start(make, echo)
    result = ladder.apply(made.box, Level.ISOLATE, run=make.run, allow=(echo[0],))
    assert result.enforcement is Enforcement.FULL, result
    assert f"{echo[0]} 200" in result.observed
    made.moves()
    before = made.board[1]
    make.wait_until(lambda: made.board[1] > before, "the responder echoes")
    made.moves()
    assert (made.board[5], made.board[6]) == (200, 403)
    assert made.board[2] == 0
    seen = ladder.probe(made.box, Level.ISOLATE, run=make.run)
    assert seen.enforcement is Enforcement.FULL, seen
    assert seen.counts["uncut"] == 0

    ladder.apply(made.box, Level.ISOLATE, run=make.run)  # as a keeper does: the order stands
    assert responders.ordered(made.box) == (echo[0],)
    before = made.board[1]
    make.wait_until(lambda: made.board[1] > before, "the responder echoes")

    total = ladder.apply(made.box, Level.ISOLATE, run=make.run, allow=())
    assert total.enforcement is Enforcement.FULL
    assert "ENETUNREACH" in total.observed
    made.moves()
    before = made.board[1]
    made.moves()
    assert made.board[1] == before
    assert ladder.release(made.box, Level.ISOLATE, run=make.run).enforcement is Enforcement.NONE


@GATED
def test_a_relay_that_is_killed_lets_nothing_through_and_is_started_again(make, echo):
    made = start(make, echo)
    ladder.apply(made.box, Level.ISOLATE, run=make.run, allow=(echo[0],))
    make.wait_until(lambda: made.board[1] > 0, "the responder echoes")
    relay = responders._record(made.box)["pid"]
    assert tree.status(relay).no_new_privs
    os.kill(relay, signal.SIGKILL)
    make.wait_until(lambda: made.board[10] != 0, "the agent gets no answer")
    seen = ladder.probe(made.box, Level.ISOLATE, run=make.run)
    assert f"{echo[0]} no answer" in seen.observed
    assert "200" not in seen.observed
    ladder.apply(made.box, Level.ISOLATE, run=make.run)
    before = made.board[1]
    make.wait_until(lambda: made.board[1] > before, "the responder echoes")


@GATED
def test_a_gateway_that_has_not_let_go_is_seen_and_all_is_cut(make, echo):
    made = make("while True: board[0] += 1; time.sleep(0.01)")
    listener = made.gateway.listener
    stop = threading.Event()

    def other():
        while not stop.is_set():
            try:
                link, _ = listener.accept()
            except OSError:
                continue
            with link:
                link.recv(512)
                link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    made.gateway.stopping.set()
    for thread in made.gateway.threads:
        thread.join()
    thread = threading.Thread(target=other)
    thread.start()
    try:
        # The relay is held back, so that it is the other who answers.
        def run(function, arguments):
            answer = make.run(function, arguments)
            if function.endswith("relay:run"):
                os.kill(answer["pid"], signal.SIGSTOP)
            return answer

        result = ladder.apply(made.box, Level.ISOLATE, run=run, allow=(echo[0],))
        assert "another than the relay" in result.observed, result
        assert "ENETUNREACH" in result.observed
        assert result.enforcement is Enforcement.FULL, "and cut it is"
        assert responders.ordered(made.box) == ()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "bad", ["example.com:443", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:70000", "0.0.0.0:443", "10.0.0.0/8:443", "*", ""]
)
def test_only_addresses_with_ports_are_taken(bad):
    with pytest.raises(InvalidInput):
        responders.checked((bad,))


def test_one_spelling():
    assert responders.checked(("[2001:DB8:0::1]:443", "10.0.0.1:9", "10.0.0.1:9")) == (
        "[2001:db8::1]:443",
        "10.0.0.1:9",
    )
