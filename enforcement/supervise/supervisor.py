"""The supervisor's loop: one thread, every agent's listener, one held call of each agent a round."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path
from typing import Any

import structlog

from clawback.enforcement.policy.escalation import EscalationRule
from clawback.enforcement.sandbox import door, inventory, wire
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.asks import Asks
from clawback.enforcement.supervise.desk import Desk, Visitor
from clawback.enforcement.supervise.inside import restrictions_of
from clawback.enforcement.supervise.orders import Orders
from clawback.enforcement.supervise.records import Records, bounded
from clawback.enforcement.supervise.supervised import Supervised
from clawback.errors import ClawbackError, InvalidInput
from clawback.model import AgentState

__all__ = ["Supervisor"]

_SHIM_SECONDS = 1.0
_TICK = 0.1
_LISTED = 100
_log = structlog.get_logger()


class Supervisor:
    """Knows the agents by their folders, or is told of them; the core may come and go."""

    def __init__(self, state: Path, *, expiry_seconds: float) -> None:
        self._state = state.resolve()
        self._asks = Asks(expiry_seconds)
        self._orders = Orders(state)
        self._records = Records(state)
        self._agents: dict[str, Supervised] = {}
        self._poll = select.epoll()
        self._polled: dict[int, tuple[str, object]] = {}  # descriptor → instance, what it is of
        self._of: dict[str, dict[int, object]] = {}  # instance → its descriptors
        self._timed: set[str] = set()  # instances that time alone brings something about for
        self._next_tick = 0.0
        self._over = False
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._stop, select.EPOLLIN)
        self._began = time.time_ns()
        for box in inventory.read_all(self._state)[0]:
            if "escalation" in box.layers and inventory.state(box) is AgentState.RUNNING:
                self._attach(box)
        self._desk = Desk(state / "run" / "supervisor.sock")
        self._poll.register(self._desk.sock, select.EPOLLIN)

    def stop(self) -> None:
        """End after this round; from a signal handler too, after which a wait goes on by itself."""
        self._over = True
        os.eventfd_write(self._stop, 1)

    def run(self) -> None:
        """Until stopped."""
        try:
            while not self._over:
                self._round()
        finally:
            self._desk.close()
            for instance in list(self._agents):
                self._detach(instance, "")
            self._records.close()
            self._poll.close()
            os.close(self._stop)

    def _round(self) -> None:
        for fd, events in self._poll.poll(_TICK if self._timed else -1):
            if fd == self._desk.sock.fileno():
                visitor = self._desk.admit()
                if visitor is not None:
                    self._poll.register(visitor, select.EPOLLIN)
            elif fd in self._desk.visitors:
                self._visited(self._desk.visitors[fd])
            elif fd in self._polled:
                self._served(*self._polled[fd], fd, events)
        now = time.monotonic()
        if self._timed and now >= self._next_tick:
            self._next_tick = now + _TICK
            self._tick(now)

    def _tick(self, now: float) -> None:
        for ask in self._asks.overdue(now):
            ask.settle(False, "the call was interrupted and did not come back" if ask.lost else "no answer in time", "")
            self._sync(ask.box.instance)
        for instance in list(self._timed):
            agent = self._agents.get(instance)
            if agent is not None:
                agent.tick(now)
            if agent is None or not agent.wants_time:
                self._timed.discard(instance)
            self._sync(instance)

    # Agents --------------------------------------------------------------------

    def _attach(self, box: Sandbox) -> bool:
        """Supervise this instance; False where its policy escalates nothing or its shim does not answer."""
        if box.instance in self._agents:
            return True
        try:
            connection, answer, fds = door.ask(box.folder, "supervise", timeout=_SHIM_SECONDS)
        except (OSError, ValueError, wire.Closed) as error:
            _log.warning("not supervised: its shim does not answer", agent=box.agent, error=str(error))
            return False
        if not answer["escalates"]:
            connection.close()
            return False
        try:
            rules = tuple(EscalationRule.from_json(rule) for rule in restrictions_of(box.folder)["escalations"])
            agent = Supervised(
                box,
                connection,
                *fds,
                rules=rules,
                asks=self._asks,
                records=self._records,
                barred=self._orders.barred,
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            connection.close()  # and the shim refuses again
            for fd in fds:
                os.close(fd)
            _log.error("not supervised", agent=box.agent, error=str(error))
            return False
        self._agents[box.instance] = agent
        self._sync(box.instance)
        self._records.say(box, "supervised", message=f"{len(rules)} rules")
        return True

    def _detach(self, instance: str, why: str) -> None:
        agent = self._agents.pop(instance, None)
        if agent is None:
            return
        for fd in self._of.pop(instance, {}):
            self._polled.pop(fd, None)
            with contextlib.suppress(OSError):
                self._poll.unregister(fd)
        agent.close()
        if why:
            self._records.say(agent.box, "unsupervised", message=why)

    def _sync(self, instance: str) -> None:
        """Poll what the agent waits for now, and nothing else of it."""
        agent = self._agents.get(instance)
        if agent is None:
            return
        if agent.wants_time:
            self._timed.add(instance)
        before = self._of.get(instance, {})
        now: dict[int, object] = {agent.connection.fileno(): agent.connection}
        if not agent.busy:
            now[agent.listener.fd] = agent.listener
        if agent.hand is not None:
            now[agent.hand.fileno()] = agent.hand
        for fd, what in before.items():
            if now.get(fd) is not what:
                self._polled.pop(fd, None)
                with contextlib.suppress(OSError):  # closed already, which took it out
                    self._poll.unregister(fd)
        for fd, what in now.items():
            if before.get(fd) is not what:
                self._poll.register(fd, select.EPOLLIN)
                self._polled[fd] = (instance, what)
        self._of[instance] = now

    def _served(self, instance: str, what: object, fd: int, events: int) -> None:
        agent = self._agents.get(instance)
        if agent is None or self._of[instance].get(fd) is not what:
            return
        try:
            if what is agent.connection:
                self._detach(instance, "its shim has ended or was given another supervisor")
            elif what is agent.hand:
                agent.answered()
            elif events & select.EPOLLIN:
                agent.take()
            else:
                self._detach(instance, "no process is left under its filter")
        except Exception:
            # A defect met with one agent's call: it is refused by its shim from here on, the others go on.
            _log.exception("supervision failed", agent=agent.box.agent)
            self._detach(instance, "the supervisor failed on one of its calls; they are refused")
        self._sync(instance)

    # The desk --------------------------------------------------------------------

    def _visited(self, visitor: Visitor) -> None:
        try:
            request = visitor.read()
            if request is None:
                self._poll.unregister(visitor)
                self._desk.dismiss(visitor)
                return
            if request:
                self._asked(visitor, request)
        except ClawbackError as error:
            visitor.answer({"error": error.message, "hint": error.hint, "type": type(error).__name__})
        except (ValueError, KeyError, TypeError) as error:
            visitor.answer({"error": f"not a request: {error}", "hint": "docs/escalation.md", "type": "InvalidInput"})
        except OSError as error:
            visitor.answer({"error": f"not done: {error}", "hint": "is the disk full?", "type": "NotEnforced"})

    def _asked(self, visitor: Visitor, request: dict[str, Any]) -> None:
        match request["do"]:
            case "list":
                asks = self._asks.all()
                visitor.answer({"escalations": [ask.shown() for ask in asks[:_LISTED]], "total": len(asks)})
            case "answer":
                self._answer(visitor, request)
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
