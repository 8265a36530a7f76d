"""What must be true whatever happened: nothing lost or doubled, contained or truly recovered, and no false word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clawback.journal import Journal
from clawback.journal.audit import verify
from clawback.model import Enforcement, Incident, IncidentStatus, Level, Receipt, ReceiptState

__all__ = ["Baseline", "baseline", "broken"]

_V = ReceiptState.VERIFIED
_UNDONE = {ReceiptState.REVERTED, ReceiptState.ALREADY_ABSENT}
_FIRST_TOKEN = "acc-1"  # of the world in memory


@dataclass(frozen=True)
class Baseline:
    """What one undisturbed response to the same alert comes to: more of anything is an effect that was doubled.

    waits   what keeps its incident open, for a person, as `action state`; empty where it closes
    """

    borders: int = 0
    relaunches: int = 0
    versions: int = 0
    tokens: int = 0
    waits: frozenset[str] = frozenset()
    why: tuple[str, ...] = ()


_BEYOND = frozenset({"agent.restrict", "agent.seal"})
"""Levels that a host may lack: see `playbooks/_contain.py`."""


def baseline(journal: Journal, there: Any, borders: int) -> Baseline:
    """Of a response that has just ended."""
    (incident,) = journal.incidents()
    return Baseline(
        borders=borders,
        relaunches=there.core.known[incident.agent].instance.count("r"),
        versions=sum(map(len, there.policies.texts.values())),
        tokens=len(_issued(there)),
        waits=frozenset(f"{x.action} {x.state}" for x in incident.receipts if x.state is not _V),
        why=tuple(f"{x.action} {x.state}: {x.error or x.proof}" for x in incident.receipts if x.state is not _V),
    )


def broken(
    journal: Journal, there: Any, *, undone: bool, lied: bool, at_rest: bool, like: Baseline | None
) -> list[str]:
    """The invariants that do not hold. `undone`: somebody undid the response; `at_rest`: nothing is under way."""
    with journal.reading() as connection:
        problems = [f"audit: {fault.where} {fault.why}" for fault in verify(connection)[1]]
    incidents = journal.incidents()
    if len(incidents) > 1:
        problems.append(f"{len(incidents)} incidents of one alert")
    for incident in incidents:
        problems += _once(incident)
        problems += _honest(incident, there)
        problems += _held(incident, there, undone=undone)
        if at_rest and like is not None:
            problems += _settled(incident, there, undone=undone, lied=lied, like=like)
    if at_rest and not incidents:
        problems.append("the alert was lost")
    return problems


def _once(incident: Incident) -> list[str]:
    keys = Counter(receipt.key for receipt in incident.receipts)
    doubled = [f"{key} has {count} receipts" for key, count in keys.items() if count > 1]
    closed = incident.status is IncidentStatus.CLOSED
    open_ones = [x for x in incident.receipts if x.state is not _V and x.state not in _UNDONE]
    if closed and open_ones:
        doubled.append(f"closed with {open_ones[0].action} {open_ones[0].state}")
    return doubled


# -- no receipt says what is not so -----------------------------------------------------------------------------------


def _replaced(incident: Incident, there: Any) -> bool:
    """The instance that the incident is about is not there any more."""
    return bool(there.core.known[incident.agent].instance != incident.instance)


def _let_go(incident: Incident) -> bool:
    """A release, or an undoing, of the hold was begun."""
    return any(
        (x.action.startswith(("agent.release", "release.")) and x.captured_ns)
        or (x.action.startswith("agent.") and x.state in (*_UNDONE, ReceiptState.REVERT_PENDING))
        or x.state is ReceiptState.REVERT_FAILED
        for x in incident.receipts
    )


def _level(level: Level) -> Callable[[Incident, Receipt, Any], bool]:
    def holds(incident: Incident, receipt: Receipt, there: Any) -> bool:
        instance = receipt.params.get("instance") or receipt.captured["instance"]
        if there.core.known[incident.agent].instance != instance or _let_go(incident):
            return True
        return there.core.enforced[incident.agent].get(level) is Enforcement.FULL

    return holds


def _rotated(incident: Incident, _receipt: Receipt, there: Any) -> bool:
    first, live = getattr(there, "first_token", _FIRST_TOKEN), there.vault.live
    return first not in live and _current(incident, there) in live


def _current(incident: Incident, there: Any, kind: str = "vault-token", by: str = "accessor") -> str:
    (held,) = (ref for ref in there.secrets.refs(incident.agent) if ref.kind == kind)
    return str(held.identifiers[by])


def _key_rotated(incident: Incident, _receipt: Receipt, there: Any) -> bool:
    active = {key for key, status in there.keys().items() if status == "Active"}
    return active == {_current(incident, there, "aws-access-key", "access_key_id")} - {there.first_key}


def _restored(_incident: Incident, receipt: Receipt, there: Any) -> bool:
    policy = receipt.params["policy"]
    return any(version.sha256 == receipt.captured["target_sha256"] for version in there.policies.versions(policy)[2:])


def _evidence(_incident: Incident, receipt: Receipt, there: Any) -> bool:
    return (
        Path(receipt.outcome["folder"], "manifest.json").is_file()
        and str(there.core.folder) in receipt.outcome["folder"]
    )


def _relaunched(incident: Incident, _receipt: Receipt, there: Any) -> bool:
    return _replaced(incident, there)


def _ticket(incident: Incident, _receipt: Receipt, there: Any) -> bool:
    return incident.id in there.tickets.texts


_TRUE: dict[str, Callable[[Incident, Receipt, Any], bool]] = {
    **{f"agent.{level.word}": _level(level) for level in Level},
    "vault.rotate-token": _rotated,
    "aws.rotate-key": _key_rotated,
    "policy.restore": _restored,
    "evidence.collect": _evidence,
    "agent.relaunch": _relaunched,
    "ticket.write": _ticket,
}


def _honest(incident: Incident, there: Any) -> list[str]:
    return [
        f"{receipt.action} says verified and is not so: {receipt.proof[:200]}"
        for receipt in incident.receipts
        if receipt.state is _V and receipt.action in _TRUE and not _TRUE[receipt.action](incident, receipt, there)
    ]


def _held(incident: Incident, there: Any, *, undone: bool) -> list[str]:
    """Once it was seen frozen, the same instance does not run again before somebody let it go."""
    frozen = any(x.action == "agent.freeze" and x.state is _V for x in incident.receipts)
    info = there.core.known[incident.agent]
    if undone or not frozen or _replaced(incident, there) or _let_go(incident):
        return []
    return [] if info.hold is not None else ["it was contained, and nothing holds it"]


# -- at the end -------------------------------------------------------------------------------------------------------


def _issued(there: Any) -> list[str]:
    return [name for name, (_, facts) in there.vault.live.items() if "clawback_step" in facts["meta"]]


def _settled(incident: Incident, there: Any, *, undone: bool, lied: bool, like: Baseline) -> list[str]:
    info, problems = there.core.known[incident.agent], []
    ours = _issued(there)
    if len(ours) > max(1, like.tokens):
        problems.append(f"{len(ours)} tokens were issued for one: {ours}")
    if ours and ours != [_current(incident, there)]:
        problems.append(f"a token that nobody holds is alive: {ours}")
    if undone:
        left = [x for x in incident.receipts if x.state is ReceiptState.REVERT_PENDING]
        return problems + [f"{x.action} is still being undone" for x in left]
    relaunches = info.instance.count("r")
    if relaunches > like.relaunches and not lied:
        problems.append(f"relaunched {relaunches} times, not {like.relaunches}")
    if len(there.tickets.texts) > 1:
        problems.append(f"{len(there.tickets.texts)} tickets")
    versions = sum(map(len, there.policies.texts.values()))
    if versions > like.versions and not lied:
        problems.append(f"{versions} policy versions, not {like.versions}")
    waiting_actions = {x.action for x in incident.receipts if x.state is not _V}
    if incident.status is IncidentStatus.OPEN and waiting_actions <= {one.partition(" ")[0] for one in like.waits}:
        return problems
    if incident.status is IncidentStatus.OPEN:
        waiting = [
            f"{x.action} {x.state} ({(x.error or x.proof)[:160]})" for x in incident.receipts if x.state is not _V
        ]
        contained = info.hold is not None and there.core.enforced[incident.agent].get(Level.FREEZE) is Enforcement.FULL
        # Recovered and proved, it may run, though a level on the old tree was not seen: the record stays open.
        done = {x.action for x in incident.receipts if x.state is _V}
        # So may one whose tracker named an issue that it never made: who deletes issues is not overruled.
        left = _BEYOND | ({"ticket.write"} if lied else frozenset())
        recovered = waiting_actions <= left and {"agent.stop", "agent.relaunch", "policy.validate"} <= done
        if not contained and not recovered:  # held, it waits for a person; free, it may not
            problems.append(f"open{'' if contained else ' and NOT CONTAINED'}: {'; '.join(waiting)}")
    return problems
