"""One supervised agent: its held calls are taken one after the other, decided, and carried out or refused."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from clawback.enforcement.kernel.notify import Held, Listener, Vanished
from clawback.enforcement.kernel.syscalls import MACHINE, NAME
from clawback.enforcement.policy.escalation import Decision, EscalationRule, Support, support
from clawback.enforcement.sandbox.escalated import Ledger
from clawback.enforcement.sandbox.record import Sandbox
from clawback.enforcement.supervise.asks import Ask, Asks
from clawback.enforcement.supervise.calls import TAKEN_APART
from clawback.enforcement.supervise.flows import Flows
from clawback.enforcement.supervise.hand import Hand, Lost
from clawback.enforcement.supervise.outcomes import Outcome, Outcomes
from clawback.enforcement.supervise.records import Records
from clawback.enforcement.supervise.rules import decide
from clawback.enforcement.supervise.subject import Done, Flow, Subject, registers

__all__ = ["Supervised"]

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(MACHINE, 0)

_log = structlog.get_logger()


class Supervised:
    """Its connection to the shim is what makes it supervised: closed, the shim refuses what is held.

    `barred` says why nothing may be allowed at this moment (a hold, an order), or is empty.
    """

    def __init__(
        self,
        box: Sandbox,
        connection: socket.socket,
        listener: int,
        ledger: int,
        *,
        rules: Sequence[EscalationRule],
        asks: Asks,
        records: Records,
        barred: Callable[[Sandbox], str],
    ) -> None:
        self.box = box
        self.connection = connection
        self.listener = Listener(listener)
        self.listener.wake_on_this_cpu()
        self.counters: Counter[str] = Counter()
        self._ledger = Ledger(ledger)
        self._rules = tuple(rules)
        self._asks = asks
        self._records = records
        self._barred = barred
        self._flows = Flows(box, self._hand_lost)
        self._outcomes = Outcomes(self.listener, self._ledger)
        alone = self._ledger.refused_alone()
        if alone:
            records.say(box, "resumed", message=f"{alone} escalated calls were refused while nobody supervised")

    @property
    def hand(self) -> Hand | None:
        """The process of ours inside, if there is one now."""
        return self._flows.hand

    @property
    def busy(self) -> bool:
        """It waits for its hand: the next call is not taken before that."""
        return self._flows.busy

    @property
    def wants_time(self) -> bool:
        """Whether `tick` has anything to look at."""
        return self.busy or bool(self._outcomes) or bool(self._asks.of(self.box.instance))

    @property
    def calls(self) -> int:
        """How many it has taken."""
        return self.counters["taken"]

    def take(self) -> None:
        """One held call. `OSError` where the listener is no more."""
        held = self.listener.receive()
        if held is None:
            return
        self.counters["taken"] += 1
        if not self._ledger.take(held.id):
            self._outcomes.give(held, Outcome(error=errno.EPERM))
            self.counters["denied"] += 1
            return
        self._flows.begin(self._decide(held))

    def answered(self) -> None:
        """The hand inside has answered, or ended."""
        self._flows.answered()

    def tick(self, now: float) -> None:
        """What time alone brings about."""
        self._flows.tick()
        self._outcomes.expire(now)
        for ask in self._asks.of(self.box.instance):
            if not ask.lost and not self.listener.valid(ask.subject.held.id):
                ask.lost = now
                self._ledger.answered(ask.subject.held.id)
            elif not ask.lost and (why := self._barred(self.box)):
                self._asks.drop(ask)
                ask.settle(False, why, "")

    def close(self) -> None:
        """Let go of everything; what is held then is the shim's to refuse."""
        for ask in self._asks.of(self.box.instance):
            self._asks.drop(ask)
            ask.subject.close()
            _tell(ask, {"outcome": "the agent is no longer supervised"})
        self._flows.close()
        self._outcomes.close()
        self._ledger.close()
        os.close(self.listener.fd)
        self.connection.close()

    # One call ----------------------------------------------------------------

    def _decide(self, held: Held) -> Flow:
        subject: Subject | None = None
        asked = False
        try:
            name = NAME.get(held.number, f"call {held.number}")
            subject = Subject(name=name, held=held, done=self._outcomes.made_before)
            if held.arch != _ARCH or support(name) is Support.NONE:
                self._deny(subject, "this call cannot be escalated")
                return
            if support(name) is Support.EMULATED:
                yield from TAKEN_APART[name](subject)
            else:
                subject.shown = registers(name, held)
            # Only now is it sure that all of this was read of the thread whose call it is.
            if not self.listener.valid(held.id):
                self._ledger.answered(held.id)
                return
            asked = yield from self._judge(subject)
        except Done:
            pass
        except OSError as error:
            # As the call itself would fail: a path that is not there, memory that is not mapped.
            self.counters["failed"] += 1
            self._outcomes.give(held, Outcome(error=error.errno or errno.EPERM))
        except Lost as error:
            _log.warning("escalated call denied", agent=self.box.agent, error=str(error))
            self._outcomes.give(held, Outcome(error=errno.EPERM))
        finally:
            if subject is not None and not asked:
                self._let_go(subject)

    def _judge(self, subject: Subject) -> Any:
        """Decide, and do it; True where a person was asked and the subject is kept."""
        if why := self._barred(self.box):
            self._deny(subject, why)
            return False
        decision, rule = decide(
            self._rules,
            name=subject.name,
            registers=subject.held.arguments,
            address=subject.address,
            paths=subject.paths,
            writes=subject.writes,
        )
        by = f"rule {rule}" if rule else "no rule"
        if decision is Decision.ASK and not rule and subject.free:
            decision, by = Decision.ALLOW, "no address"
        if decision is Decision.DENY:
            self._deny(subject, by)
        elif decision is Decision.ALLOW:
            self.counters["allowed"] += 1
            self._records.decided(self.box, subject, allowed=True, by=by, durable=False)
            yield from self._carry_out(subject)
        else:
            return self._put(subject)
        return False

    def _put(self, subject: Subject) -> bool:
        before = self._asks.again(self.box.instance, subject)
        if before is not None:
            # The same question still: the places found now take the place of those found then.
            before.subject.close()
            self._let_go(before.subject)
            before.subject, before.lost = subject, 0.0
            return True
        _ = subject.thread  # while it is held: a question says who asks
        if self._asks.full(self.box.instance):
            self._deny(subject, "too many questions of this agent are open")
            return False
        ask = self._asks.add(self.box, subject, lambda *_: None)
        ask.settle = lambda allowed, by, reason: self._settle(ask, allowed=allowed, by=by, reason=reason)
        self.counters["asked"] += 1
        self._records.say(
            self.box,
            "asked",
            message=f"{ask.id}: {subject.name} " + " ".join(f"{k} {v}" for k, v in subject.shown.items()),
        )
        return True

    def _settle(self, ask: Ask, *, allowed: bool, by: str, reason: str) -> None:
        self._flows.queue(lambda: self._carry_out_answer(ask, allowed=allowed, by=by, reason=reason))

    def _carry_out_answer(self, ask: Ask, *, allowed: bool, by: str, reason: str) -> Flow:
        subject = ask.subject
        outcome = "denied"
        try:
            if allowed and (why := self._barred(self.box)):
                allowed, by, reason = False, why, f"{by} had allowed it"
            # On disk before it takes effect: what could not be written did not happen.
            self._records.decided(self.box, subject, allowed=allowed, by=by, reason=reason, ask=ask.id, durable=True)
            if not allowed:
                self.counters["denied"] += 1
                self._outcomes.give(subject.held, Outcome(error=errno.EPERM))
            elif not self.listener.valid(subject.held.id):
                self._ledger.answered(subject.held.id)
                outcome = "the call is gone"
            else:
                self.counters["allowed"] += 1
                outcome = yield from self._carry_out(subject)
        except (OSError, Lost) as error:
            outcome = f"denied: {error}"
            self._outcomes.give(subject.held, Outcome(error=errno.EPERM))
        finally:
            _tell(ask, {"outcome": outcome})
            self._let_go(subject)

    def _carry_out(self, subject: Subject) -> Any:
        """Do what was allowed; a word for what came of it."""
        if subject.act is None:
            # Decided on registers, which are as they were: nothing in memory was looked at.
            with contextlib.suppress(Vanished):
                self.listener.let_go(subject.held.id)
            self._ledger.answered(subject.held.id)
            return "let go"
        fds, subject.descriptors = subject.descriptors, []
        answer, extra = yield subject.act, fds
        if "errno" in answer:
            outcome = Outcome(error=answer["errno"])
        elif extra:
            outcome = Outcome(file=extra[0], close_on_exec=subject.close_on_exec)
        else:
            outcome = Outcome(value=answer["value"])
        self._outcomes.give(subject.held, outcome, subject)
        return f"failed: {os.strerror(answer['errno'])}" if "errno" in answer else "done"

    def _let_go(self, subject: Subject) -> None:
        """The hand inside hears of it with its next request."""
        subject.close()
        self._flows.drop(subject.found)
        subject.found = []

    def _deny(self, subject: Subject, by: str) -> None:
        self.counters["denied"] += 1
        self._records.decided(self.box, subject, allowed=False, by=by, durable=False)
        self._outcomes.give(subject.held, Outcome(error=errno.EPERM))

    def _hand_lost(self, why: str) -> None:
        self.counters["hands lost"] += 1
        for ask in self._asks.of(self.box.instance):
            if ask.subject.found:  # what it was about is held by nobody any more
                self._asks.drop(ask)
                ask.subject.found = []
                ask.settle(False, "supervisor", why)


def _tell(ask: Ask, what: dict[str, Any]) -> None:
    for told in ask.told:
        told(what)
