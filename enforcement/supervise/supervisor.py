"""The supervisor's loop: one thread, every agent's listener, one held call of each agent a round."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path

import structlog

from clawback.enforcement.policy.escalation import EscalationRule
from clawback.enforcement.sandbox import door, inventory, wire
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.asks import Asks
from clawback.enforcement.supervise.desk import Desk, Visitor
from clawback.enforcement.supervise.inside import restrictions_of
from clawback.enforcement.supervise.orders import Orders
from clawback.enforcement.supervise.records import Records
from clawback.enforcement.supervise.requests import Requests
from clawback.enforcement.supervise.supervised import Supervised
from clawback.errors import ClawbackError
from clawback.model import AgentState

__all__ = ["LINGER_SECONDS", "Supervisor"]

LINGER_SECONDS = 2.0
"""How long it stays when neither a core nor an agent is left: a core that is started again may want it."""

_SHIM_SECONDS = 1.0
_TICK = 0.1
_LOOK = 0.5
_log = structlog.get_logger()


class Supervisor:
    """Knows the agents by their folders, or is told of them; the core may come and go."""

    def __init__(self, state: Path, *, expiry_seconds: float, linger_seconds: float = LINGER_SECONDS) -> None:
        self._state = state.resolve()
        self._home = self._state.stat().st_ino
        self._linger = linger_seconds
        self._needed = time.monotonic()
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
        self._requests = Requests(
            self._state,
            self._agents,
            asks=self._asks,
            orders=self._orders,
            records=self._records,
            attach=self._attach,
            sync=self._sync,
            leave=self._left,
        )
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
        """Until stopped, or needed no more."""
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
        for fd, events in self._poll.poll(_TICK if self._timed else _LOOK):
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
        if self._agents or self._attended:
            self._needed = now
        if now - self._needed > self._linger or not self._at_home():
            self._over = True

    @property
    def _attended(self) -> bool:
        return any(visitor.core for visitor in self._desk.visitors.values())

    def _left(self) -> bool:
        """A core goes: end at once where nobody is left, as it may wait for that."""
        self._over = not self._agents and not self._attended
        return self._over

    def _at_home(self) -> bool:
        """The state is still there: without it nobody could ask for anything, and the shims refuse when we are gone."""
        try:
            return self._state.stat().st_ino == self._home
        except FileNotFoundError:
            return False

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
                self._requests.take(visitor, request)
        except ClawbackError as error:
            visitor.answer({"error": error.message, "hint": error.hint, "type": type(error).__name__})
        except (ValueError, KeyError, TypeError) as error:
            visitor.answer({"error": f"not a request: {error}", "hint": "docs/escalation.md", "type": "InvalidInput"})
        except OSError as error:
            visitor.answer({"error": f"not done: {error}", "hint": "is the disk full?", "type": "NotEnforced"})
