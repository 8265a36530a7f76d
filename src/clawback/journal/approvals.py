"""The journal's approvals: a question about one step, the answers to it, and its being used, once.

Whoever answers names the nonce of the question that they were shown, so that an answer meant for another question, or
for this step with other parameters, counts for nothing. What is not granted in time is denied.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, exists, insert, select, update

from clawback.errors import NotFound, Refused
from clawback.journal import records
from clawback.journal.schema import approvals, receipts, votes
from clawback.journal.store import Store, id_of
from clawback.model import Approval, ApprovalState, Incident, Phase, ReceiptState, Vote

__all__ = ["Approvals", "Need", "digest_of"]

_S = ApprovalState
_SHOWN_LINES, _SHOWN_TEXT = 200, 500
_VOTE = insert(votes).returning(votes.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a rule asks for: how many grants, by whom, for how long the question stands."""

    quorum: int = 1
    approvers: tuple[str, ...] = ()
    separate: bool = True
    seconds: int = 900


def digest_of(incident: str, action: str, params: Mapping[str, Any]) -> str:
    """What an approval is bound to, in hexadecimal."""
    return hashlib.sha256(json.dumps([incident, action, params], sort_keys=True).encode()).hexdigest()


class Approvals(Store):
    """What `Journal` does with approvals. One past its time reads as expired, whatever is on record."""

    def ask(
        self,
        incident: str | Incident,
        key: str,
        action: str,
        phase: Phase,
        params: Mapping[str, Any],
        need: Need,
        *,
        shown: Sequence[str],
        actor: str,
    ) -> Approval:
        """The question that stands for this step with these parameters, asked now if there is none.

        One that was denied or that expired stands until somebody renews it; one that was used does not.
        """
        digest = digest_of(id_of(incident), action, params)
        with self.writing() as connection:
            newest = self._newest(connection, id_of(incident), key)
            known = None if newest is None else self._settled(connection, newest.id)
            if known is not None and known.digest == digest and known.state is not _S.USED:
                return known
            return self._ask(
                connection,
                {
                    "incident": id_of(incident),
                    "key": key,
                    "action": action,
                    "phase": phase,
                    "digest": digest,
                    "shown": [records.bounded(line, _SHOWN_TEXT) for line in shown[:_SHOWN_LINES]],
                    "asked_by": records.bounded(actor, 256),
                    "quorum": need.quorum,
                    "approvers": list(need.approvers),
                    "separate": need.separate,
                    "seconds": need.seconds,
                },
            )

    def answer(
        self, approval: str, *, nonce: str, who: str, grant: bool, reason: str = "", channel: str = "cli"
    ) -> Approval:
        """One person's answer. `Refused` where it may not be given: too late, twice, by the wrong one, to another."""
        who = records.identifier(who, "approver")
        with self.writing() as connection:
            current = self._settled(connection, approval)
            if current.state is not _S.PENDING:
                raise Refused(f"{approval} is {current.state.value}", hint="`clawback approvals renew` asks anew")
            if not secrets.compare_digest(nonce, current.nonce):
                raise Refused(f"that is no answer to {approval}", hint="look at it again: it may have been asked anew")
            self._may_answer(connection, current, who, grant=grant)
            vote = {
                "approval": current.id,
                "incident": current.incident,
                "who": who,
                "grant": grant,
                "reason": records.bounded(reason, 500),
                "channel": records.bounded(channel, 32),
                "at_ns": time.time_ns(),
            }
            said = "granted" if grant else "denied"
            ref = connection.execute(_VOTE, vote).scalar_one()
            self._touch(connection, "vote", ref, current.incident, f"{current.action} {said}", who)
            self._line(
                connection, current.incident, current.phase, f"{current.action} {said} by {who}", str(vote["reason"])
            )
            grants = sum(one.grant for one in current.votes) + grant
            if not grant:
                self._set_approval(connection, current, _S.DENIED, who)
            elif grants >= current.quorum:
                # From here on the clock is for using it.
                self._set_approval(
                    connection, current, _S.GRANTED, who, expires_ns=time.time_ns() + current.seconds * 10**9
                )
            return self._approval(connection, approval)

    def use(self, approval: str, actor: str) -> Approval:
        """Spend it; whoever gets it back may make the step. `Refused` if it is not granted, or was spent."""
        with self.writing() as connection:
            current = self._settled(connection, approval)
            if current.state is not _S.GRANTED:
                raise Refused(f"{approval} is {current.state.value}", hint="ask for it anew")
            self._set_approval(connection, current, _S.USED, actor)
            return self._approval(connection, approval)

    def renew(self, approval: str, actor: str) -> Approval:
        """Ask the same anew, after a denial or too long a silence."""
        with self.writing() as connection:
            current = self._settled(connection, approval)
            if current.state not in (_S.DENIED, _S.EXPIRED):
                raise Refused(f"{approval} is {current.state.value}", hint="only what was denied or expired is renewed")
            newest = self._newest(connection, current.incident, current.key)
            if newest is not None and newest.id != current.id:
                raise Refused(f"{approval} was renewed by {newest.id}", hint=f"answer {newest.id}")
            names = ("incident", "key", "action", "phase", "digest", "quorum", "separate", "seconds")
            row = {name: getattr(current, name) for name in names}
            row |= {"shown": list(current.shown), "approvers": list(current.approvers)}
            return self._ask(connection, row | {"asked_by": records.bounded(actor, 256)})

    def approval(self, approval: str) -> Approval:
        """As it stands."""
        with self.reading() as connection:
            return self._approval(connection, approval)

    def approvals(self, *states: ApprovalState, incident: str = "") -> tuple[Approval, ...]:
        """All, or those in one of these states, or of one incident; oldest first."""
        query = select(approvals.c.id).order_by(approvals.c.asked_ns, approvals.c.id)
        if incident:
            query = query.where(approvals.c.incident == incident)
        if states and _S.EXPIRED not in states:  # which is seen by the clock, and may not be on record yet
            query = query.where(approvals.c.state.in_(states))
        with self.reading() as connection:
            names = connection.execute(query).scalars().all()
            found = tuple(self._approval(connection, name) for name in names)
        return tuple(one for one in found if not states or one.state in states)

    def decided(self) -> tuple[tuple[str, str], ...]:
        """(approval, incident) of the steps that can be gone on with: granted, or waiting for what is denied by now."""
        step = (receipts.c.incident == approvals.c.incident) & (receipts.c.key == approvals.c.key)
        over = (approvals.c.state != _S.PENDING) | (approvals.c.expires_ns <= time.time_ns())
        waits = exists().where(
            step, receipts.c.state == ReceiptState.AWAITING, receipts.c.error.endswith(approvals.c.id)
        )
        query = select(approvals.c.id, approvals.c.incident).where(
            ((approvals.c.state == _S.GRANTED) & exists().where(step)) | (over & waits)
        )
        with self.glancing() as connection:
            return tuple((row.id, row.incident) for row in connection.execute(query))

    # ----------------------------------------------------------------------------------------------------------------

    def _ask(self, connection: Connection, row: dict[str, Any]) -> Approval:
        now = time.time_ns()
        name = f"APR-{secrets.token_hex(6).upper()}"
        row = row | {
            "id": name,
            "nonce": secrets.token_hex(16),
            "asked_ns": now,
            "expires_ns": now + row["seconds"] * 10**9,
            "state": _S.PENDING,
        }
        connection.execute(insert(approvals).values(**row))
        self._touch(connection, "approval", name, row["incident"], f"{row['action']} asked", row["asked_by"])
        self._line(connection, row["incident"], Phase(row["phase"]), f"{row['action']} awaits approval", name)
        return self._approval(connection, name)

    def _may_answer(self, connection: Connection, current: Approval, who: str, *, grant: bool) -> None:
        if any(one.who == who for one in current.votes):
            raise Refused(f"{who} has answered {current.id} already", hint="another person is needed")
        if current.approvers and who not in current.approvers:
            raise Refused(f"{who} may not answer {current.id}", hint=f"ask {', '.join(current.approvers)[:200]}")
        if not (grant and current.separate):
            return
        acted = select(receipts.c.actor).where(
            receipts.c.incident == current.incident, receipts.c.phase == Phase.CONTAIN
        )
        if who == current.asked_by or who in set(connection.execute(acted).scalars()):
            raise Refused(f"{who} asked for it, or contained the agent", hint="another person must grant it")

    def _set_approval(
        self, connection: Connection, current: Approval, state: ApprovalState, actor: str, **values: Any
    ) -> None:
        connection.execute(update(approvals).where(approvals.c.id == current.id).values(state=state, **values))
        self._touch(connection, "approval", current.id, current.incident, f"{current.action} {state.value}", actor)

    def _newest(self, connection: Connection, incident: str, key: str) -> Approval | None:
        query = (
            select(approvals.c.id)
            .where(approvals.c.incident == incident, approvals.c.key == key)
            .order_by(approvals.c.asked_ns.desc(), approvals.c.id)
            .limit(1)
        )
        name = connection.execute(query).scalar()
        return None if name is None else self._approval(connection, name)

    def _approval(self, connection: Connection, approval: str) -> Approval:
        row = connection.execute(select(approvals).where(approvals.c.id == approval)).one_or_none()
        if row is None:
            raise NotFound(f"no approval {approval[:40]!a}", hint="`clawback approvals` lists them")
        values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name for it
        given = connection.execute(select(votes).where(votes.c.approval == approval).order_by(votes.c.id)).all()
        current = Approval(
            **values
            | {
                "phase": Phase(row.phase),
                "state": ApprovalState(row.state),
                "shown": tuple(row.shown),
                "approvers": tuple(row.approvers),
                "votes": tuple(
                    Vote(who=one.who, grant=one.grant, reason=one.reason, channel=one.channel, at_ns=one.at_ns)
                    for one in given
                ),
            }
        )
        late = current.state in (_S.PENDING, _S.GRANTED) and time.time_ns() >= current.expires_ns
        return replace(current, state=_S.EXPIRED) if late else current

    def _settled(self, connection: Connection, approval: str) -> Approval:
        """The same, within a transaction that writes: that it expired is on record from here on."""
        current = self._approval(connection, approval)
        row = connection.execute(select(approvals.c.state).where(approvals.c.id == approval)).scalar_one()
        if current.state is _S.EXPIRED and row != _S.EXPIRED:
            self._set_approval(connection, current, _S.EXPIRED, "clock")
            self._line(connection, current.incident, current.phase, f"{current.action} approval expired", current.id)
        return current
