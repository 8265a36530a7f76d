"""Questions of the journal as paused runs in Prefect, answered by the form that its UI shows.

The gate is the journal's. A run here only carries an answer to it: whatever becomes of the run, killed, deleted, set to
running or completed by hand, resumed with nothing filled in, the step waits until the journal has a grant. What is read
is the recorded input, and only the word `grant`. Everything is looked at anew each time, so a restart forgets nothing.

Prefect's login is shared: who answers there is nobody known. The settings say whether that counts, as the user
`prefect:shared`, or only with a person's name and the one-time code that `clawback approvals code` gave that person.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Literal

import structlog
from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.input.run_input import keyset_from_base_key
from prefect.states import Cancelled, Completed, Paused, Running

from clawback.connectors.codes import code_fits
from clawback.errors import ClawbackError, Refused
from clawback.journal import Journal
from clawback.model import Approval, ApprovalState

__all__ = ["SHARED", "Gates"]

_log = structlog.get_logger()

SHARED = "prefect:shared"
LOOK_SECONDS = 1.0
_MOST = 50  # questions that are offered at a time
_TRIES = 10  # answers to one question that may be wrong
_RUNS = 3  # for one question
_MARK = "approval:"
_ENDS = {
    ApprovalState.GRANTED: "Granted",
    ApprovalState.USED: "Granted",
    ApprovalState.DENIED: "Denied",
    ApprovalState.EXPIRED: "Expired",
}


class Gates:
    """One for a link to a server."""

    def __init__(
        self, client: PrefectClient, tag: str, journal: Journal, state: Path, mode: Literal["shared", "codes"]
    ) -> None:
        self._client = client
        self._tag = tag
        self._journal = journal
        self._state = state
        self._codes = mode == "codes"
        self._spent: set[str] = set()
        self._open = True  # a former life may have left runs

    async def keep(self) -> None:
        """Look until cancelled; a server that fails is asked again."""
        while True:
            try:
                await self.look()
            except Exception as error:
                _log.warning("prefect: questions could not be looked at", error=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Offer what waits, take what was answered, end what is settled."""
        waiting = {one.id: one for one in await asyncio.to_thread(self._journal.approvals, ApprovalState.PENDING)}
        if not waiting and not self._open:
            return
        runs = {_of(run): run for run in await self._runs()}
        for name, run in runs.items():
            try:
                if name not in waiting:
                    await self._end(run, name)
                elif run.state is None or run.state.type is not StateType.PAUSED:
                    await self._answered(run, waiting[name])
            except Exception as error:  # one that cannot be read holds up no other
                _log.warning("prefect: an answer could not be read", approval=name, error=type(error).__name__)
        for one in tuple(waiting.values())[:_MOST]:
            if one.id not in runs and await self._may_offer(one):
                await self._offer(one)
        self._open = bool(waiting)

    async def _may_offer(self, one: Approval) -> bool:
        """Somebody may have ended its run by hand; but each is a further chance to guess, so there are few."""
        if one.id not in self._spent:
            wanted = FlowRunFilter.model_validate({"tags": {"all_": [self._tag, f"{_MARK}{one.id}"]}})
            past = await self._client.read_flow_runs(flow_run_filter=wanted, limit=_RUNS)
            cancelled = any(run.state is not None and run.state.type is StateType.CANCELLED for run in past)
            if len(past) < _RUNS and not cancelled:
                return True
            self._spent.add(one.id)
        return False

    async def _runs(self) -> list[FlowRun]:
        states = [StateType.PAUSED, StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED]
        wanted = FlowRunFilter.model_validate(
            {"tags": {"all_": [self._tag, "approval"]}, "state": {"type": {"any_": states}}}
        )
        return await self._client.read_flow_runs(flow_run_filter=wanted, limit=200)

    async def _offer(self, one: Approval) -> None:
        async def approval() -> None: ...

        run = await self._client.create_flow_run(
            Flow(approval, name="approval"),
            name=f"{one.action} in {one.incident}"[:200],
            tags=[self._tag, "approval", f"{_MARK}{one.id}", f"of:{one.incident}"],
        )
        await self._client.set_flow_run_state(run.id, Running(), force=True)
        await self._ask(run, one, 1, "")

    async def _ask(self, run: FlowRun, one: Approval, number: int, wrong: str) -> None:
        """Pause it on a form of its own: an answer to an earlier form is never read as one to this."""
        keys = keyset_from_base_key(f"ask-{number}")
        await self._put(run, keys["schema"], self._form())
        await self._put(run, keys["description"], _described(one, wrong, codes=self._codes))
        state: Any = Paused(pause_key=str(number), message=f"{one.id} waits for an answer{wrong and f': {wrong}'}")
        state.state_details.run_input_keyset = {**keys}
        await self._client.set_flow_run_state(run.id, state, force=True)

    async def _put(self, run: FlowRun, key: str, value: object) -> None:
        try:
            await self._client.create_flow_run_input(run.id, key, json.dumps(value))
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", 0) != 409:  # there since before a crash
                raise

    async def _answered(self, run: FlowRun, one: Approval) -> None:
        found = await self._client.filter_flow_run_input(run.id, key_prefix="ask-", limit=200, exclude_keys=set())
        inputs = {item.key: item.value for item in found}
        number = sum(key.endswith("-schema") for key in inputs)
        wrong = ""
        if number:
            # None where it was resumed, or set to run, without an answer.
            said = json.loads(inputs.get(f"ask-{number}-response") or "null")
            wrong = await asyncio.to_thread(self._vote, one, said)
        now = await asyncio.to_thread(self._journal.approval, one.id)
        if now.state is not ApprovalState.PENDING:
            await self._end(run, one.id)
        elif number >= _TRIES:
            await self._client.set_flow_run_state(
                run.id,
                Cancelled(message="too many answers that did not count; `clawback approvals` takes it"),
                force=True,
            )
        else:
            await self._ask(run, one, number + 1, wrong)

    def _vote(self, one: Approval, said: Any) -> str:
        """What is wrong with the answer; empty where it was taken."""
        if not isinstance(said, dict) or said.get("answer") not in ("grant", "deny"):
            return "nothing was answered"
        who = SHARED
        if self._codes:
            who = str(said.get("person", ""))[:256]
            try:
                if not who or not code_fits(self._state, one, who, str(said.get("code", ""))):
                    return "the code is not that person's for this question"
            except ClawbackError as error:
                return error.message
        try:
            self._journal.answer(
                one.id,
                nonce=one.nonce,
                who=who,
                grant=said["answer"] == "grant",
                reason=str(said.get("reason", ""))[:500],
                channel="prefect",
            )
        except Refused as error:
            return error.message
        return ""

    async def _end(self, run: FlowRun, name: str) -> None:
        one = await asyncio.to_thread(self._journal.approval, name)
        votes = "; ".join(f"{'granted' if vote.grant else 'denied'} by {vote.who}" for vote in one.votes)
        state: Any = Completed(name=_ENDS.get(one.state, one.state.value), message=votes or one.state.value)
        await self._client.set_flow_run_state(run.id, state, force=True)

    def _form(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "answer": {"type": "string", "enum": ["deny", "grant"], "default": "deny", "title": "Answer"},
            "reason": {"type": "string", "default": "", "maxLength": 500, "title": "Reason"},
        }
        if self._codes:
            fields["person"] = {"type": "string", "default": "", "maxLength": 256, "title": "Your user name"}
            fields["code"] = {"type": "string", "default": "", "maxLength": 64, "title": "Your one-time code"}
        for position, field in enumerate(fields.values()):
            field["position"] = position
        required = ["answer", *(["person", "code"] if self._codes else [])]
        return {"title": "Approval", "type": "object", "properties": fields, "required": required}


def _of(run: FlowRun) -> str:
    return next((tag.removeprefix(_MARK) for tag in run.tags if tag.startswith(_MARK)), "")


def _described(one: Approval, wrong: str, *, codes: bool) -> str:
    """Markdown. What an agent may have chosen stands in a fence that it cannot close."""

    def clean(text: str) -> str:
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

    shown = "\n".join(clean(line) for line in one.shown)
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall(r"`+", shown)), default=0))
    lines = [
        f"**{one.action}** in {one.incident} ({one.phase.value}), asked by {clean(one.asked_by)}.",
        f"Needs {one.quorum} of {clean(', '.join(one.approvers)) or 'anybody'}.",
        *([f"**Not taken:** {clean(wrong)}."] if wrong else []),
        *([f"Your one-time code: `clawback approvals code {one.id}`."] if codes else []),
        f"{fence}diff\n{shown}\n{fence}",
    ]
    return "\n\n".join(lines)
