"""The queue of what is held: bounded in number, bytes and time, and empty when it is over."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from clawback.enforcement.gateway import holding
from clawback.enforcement.gateway.holding import NotHeldError, Queue
from clawback.enforcement.gateway.policies import Judged
from clawback.enforcement.policy.orders import Ruling
from clawback.model import Decision, EgressOrder, OrderKind, Scope, ScopeKind

ORDER = EgressOrder(id="o", kind=OrderKind.INFERENCE, scope=Scope(ScopeKind.ALL), reason="r", by="b", mode="x")
ALLOWED = Decision(allowed=True, rule="r", reason="", policy="p", policy_version=1)
HELD = Judged(ALLOWED, ruling=Ruling(held=(ORDER,), found=("secret",)))


class Changes:
    """Stands in for the orders: changes when told."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def changed(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return


def run(work: Any) -> Any:
    async def with_a_connection() -> Any:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as agent:
            taken, _ = server.accept()
            with taken:
                return await work(taken, agent)

    return asyncio.run(with_a_connection())


def test_it_waits_until_no_order_has_it_wait() -> None:
    async def work(sock: socket.socket, _agent: socket.socket) -> None:
        queue, changes = Queue(30.0), Changes()
        lifted: list[Judged] = []
        waiting = asyncio.ensure_future(
            queue.wait(HELD, 10, sock, changes, lambda: lifted[0] if lifted else HELD)  # type: ignore[arg-type]
        )
        await asyncio.sleep(0)
        assert (queue.held, queue.waiting) == ({"o": 1}, 1)
        lifted.append(Judged(ALLOWED))
        changes.event.set()
        assert await waiting == lifted[0]
        assert (queue.held, queue.waiting) == ({}, 0)

    run(work)


def test_its_time_ends() -> None:
    async def work(sock: socket.socket, _agent: socket.socket) -> None:
        queue = Queue(0.05)
        with pytest.raises(NotHeldError, match=r"held for 0\.05 s"):
            await queue.wait(HELD, 10, sock, Changes(), lambda: HELD)  # type: ignore[arg-type]
        assert (queue.held, queue.waiting) == ({}, 0)

    run(work)


@pytest.mark.parametrize(("most", "size"), [(3, 1), (100, holding.MOST_BYTES // 3)])
def test_no_more_than_so_many_and_so_much(monkeypatch: pytest.MonkeyPatch, most: int, size: int) -> None:
    monkeypatch.setattr(holding, "MOST_HELD", most)

    async def work(sock: socket.socket, _agent: socket.socket) -> None:
        queue, changes = Queue(30.0), Changes()

        def wait() -> Any:
            return asyncio.ensure_future(queue.wait(HELD, size, sock, changes, lambda: HELD))  # type: ignore[arg-type]

        waiting = [wait() for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(NotHeldError, match="too many"):
            await wait()
        assert queue.waiting == 3
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (queue.held, queue.waiting, queue._bytes) == ({}, 0, 0)

    run(work)


def test_an_agent_that_leaves_makes_room() -> None:
    async def work(sock: socket.socket, agent: socket.socket) -> None:
        queue = Queue(30.0)
        agent.close()
        with pytest.raises(ConnectionAbortedError):
            await queue.wait(HELD, 10, sock, Changes(), lambda: HELD)  # type: ignore[arg-type]
        assert queue.waiting == 0

    run(work)
