"""What visitors of the supervisor's desk may ask for: escalations to list and answer, agents to take on or refuse."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clawback.enforcement.sandbox import inventory
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.asks import Asks
from clawback.enforcement.supervise.desk import Visitor
from clawback.enforcement.supervise.orders import Orders
from clawback.enforcement.supervise.records import Records, bounded
from clawback.enforcement.supervise.supervised import Supervised
from clawback.errors import InvalidInput

__all__ = ["Requests"]

_LISTED = 100


class Requests:
    """Answers each. `agents` are those supervised now, by instance; `attach` takes on one more; `sync` is to be called
    with an instance of which something was settled; `leave` when a core goes, and says whether nobody is left to serve.
    """

    def __init__(
        self,
        state: Path,
        agents: Mapping[str, Supervised],
        *,
        asks: Asks,
        orders: Orders,
        records: Records,
        attach: Callable[[Sandbox], bool],
        sync: Callable[[str], None],
        leave: Callable[[], bool],
    ) -> None:
        self._state = state
        self._agents = agents
        self._asks = asks
        self._orders = orders
        self._records = records
        self._attach = attach
        self._sync = sync
        self._leave = leave
        self._began = time.time_ns()

    def take(self, visitor: Visitor, request: dict[str, Any]) -> None:
        """One request. `ClawbackError`, or what a malformed one raises: `ValueError`, `KeyError`, `TypeError`."""
        match request["do"]:
            case "list":
                asks = self._asks.all()
                visitor.answer({"escalations": [ask.shown() for ask in asks[:_LISTED]], "total": len(asks)})
            case "answer":
                self._answer(visitor, request)
            case "attend":
                visitor.core = True
                visitor.answer({"attended": True})
            case "leave":
                visitor.core = False
                visitor.answer({"ending": self._leave()})
            case "attach":
                visitor.answer({"supervised": self._attach_folder(str(request["folder"]))})
            case "refuse" | "decide":
                visitor.answer(self._order(request))
            case "status":
                visitor.answer(self._status(str(request.get("agent", ""))))
            case other:
                raise InvalidInput(f"no request {bounded(other, 40)!r}")

    def _answer(self, visitor: Visitor, request: dict[str, Any]) -> None:
        allowed, by, reason = request["allow"], request["by"], request["reason"]
        if not isinstance(allowed, bool) or not isinstance(by, str) or not by or not isinstance(reason, str):
            raise InvalidInput("an answer has allow (true or false), by and reason")
        ask = self._asks.take(str(request["id"]))
        ask.told.append(lambda what: visitor.answer(ask.shown() | what))
        ask.settle(allowed, bounded(by, 200), bounded(reason, 500))
        self._sync(ask.box.instance)

    def _attach_folder(self, folder: str) -> bool:
        path = Path(folder).resolve()
        if path.parent.parent != self._state / "agents":
            raise InvalidInput("folder: not an instance's of this state")
        return self._attach(inventory.load(path))

    def _order(self, request: dict[str, Any]) -> dict[str, Any]:
        """Refuse all of an agent's escalated calls, or decide them again; answered when it is in force and on disk."""
        agent, by, reason = str(request["agent"]), str(request["by"]), str(request["reason"])
        found = [item for item in self._agents.values() if item.box.agent == agent]
        if request["do"] == "refuse":
            self._orders.refuse(agent, by=bounded(by, 200))
        else:
            self._orders.decide_again(agent)
        for item in found:
            status = "refusing" if request["do"] == "refuse" else "deciding"
            self._records.ordered(item.box, status, by=bounded(by, 200), reason=bounded(reason, 500))
            item.tick(time.monotonic())  # what waits for a person is refused now, not at the next tick
            self._sync(item.box.instance)
        return self._status(agent)

    def _status(self, agent: str) -> dict[str, Any]:
        found = [item for item in self._agents.values() if not agent or item.box.agent == agent]
        status: dict[str, Any] = {
            "since_ns": self._began,
            "pid": os.getpid(),
            "supervised": len(found),
            "pending": len(self._asks),
            "agents": [
                {
                    "agent": item.box.agent,
                    "instance": item.box.instance,
                    "barred": self._orders.barred(item.box),
                    "pending": len(self._asks.of(item.box.instance)),
                    **item.counters,
                }
                for item in found[:_LISTED]
            ],
        }
        return status | ({"refused": self._orders.refused(agent)} if agent else {})
