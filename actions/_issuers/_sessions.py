"""Sessions of a user or a role: they are refused all at once, by the time at which they were issued.

Nothing lists sessions, and none is ended alone. So a node stands for all of one principal's; it is closed by an inline
policy that denies everything to those issued before a moment. The moment lies some seconds ahead: whoever refuses two
principals that can become each other, one after the other, must refuse what the second made of the first in between.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from clawback.action import Record
from clawback.actions._credentials import key_id, watch_refused
from clawback.actions._records import Records
from clawback.actions._walk import Seen
from clawback.errors import Refused, Unreachable
from clawback.model import CredentialNode, Life
from clawback.world import TrailEvent

__all__ = ["calls", "capture", "close", "closed_ns", "life", "moment_ns", "reopen"]

_AHEAD_SECONDS = 15
_SECOND_NS = 1_000_000_000
_FOREVER_NS = 1 << 70


def moment_ns(records: Records, principal: str) -> int:
    """Before when this incident's policies refuse the principal's sessions; 0 where they refuse none."""
    prefix = f"clawback-{_plain(records.ctx.incident.id)}-"
    moments = [_moment(doc) for name, doc in records.inline(principal).items() if name.startswith(prefix)]
    return max(moments, default=0)


def closed_ns(records: Records, principal: str) -> int:
    """From when on calls by the principal's sessions were refused; 0 where they are not."""
    return moment_ns(records, principal)


def calls(records: Records, node: CredentialNode, *, issuer: str = "", user: str = "") -> Iterable[TrailEvent]:
    """Calls by the node's sessions: those that the record ascribes to it, to a session that we know, or to nobody.

    The last are taken only once a session was issued, and an AssumeRole only into a role that trusts this principal.
    """
    known = node.facts.get("access_key_id", "")
    principal = issuer or f":user/{user}"
    for event in records.trail.events:
        temporary = event.caller_key.startswith("ASIA")
        if (
            (issuer and event.issuer == issuer)
            or (user and temporary and event.user == user)
            or (known and event.caller_key == known)
        ):
            yield event
    for event in records.issuing:
        if event.caller_key == known or not node.issued_ns or event.time_ns < node.issued_ns:
            continue
        target = event.params.get("roleArn", "")
        if event.name != "AssumeRole" or _trusts(records.roles.get(target, {}), principal):
            yield event


def _trusts(document: Mapping[str, Any], principal: str) -> bool:
    statements = document.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        named = statement.get("Principal", {}) if isinstance(statement, dict) else {}
        listed = named.get("AWS", []) if isinstance(named, dict) else named
        for one in listed if isinstance(listed, list) else [listed]:
            if one == "*" or str(one).endswith(principal):
                return True
    return False


def life(records: Records, node: CredentialNode, principal: str) -> Seen:
    """Refused, if a session at hand is; gone, if the policy stands and covers all that was issued."""
    if not records.world.cloud_records.exists(principal):
        return Seen(life=Life.GONE, how=f"IAM has no {principal}")
    moment = moment_ns(records, principal)
    if not moment:
        return Seen(life=Life.ALIVE, how=f"nothing of this incident's refuses sessions of {principal}")
    before = _words(moment)
    if node.issued_ns >= moment:
        return Seen(life=Life.ALIVE, how=f"one was issued at {_words(node.issued_ns)}, and refused are those {before}")
    for parent in node.parents:
        if _lived_ns(records, parent) > moment:
            return Seen(life=Life.ALIVE, how=f"{parent} could still make one, and refused are those before {before}")
    value = records.aws_value(
        node.facts.get("agent", ""), node.facts.get("name", ""), node.facts.get("access_key_id", "")
    )
    place = f"refused are those issued before {before}"
    if value:
        refused, answer = watch_refused(lambda: records.world.cloud.permitted(value), records.world.cloud.settle)
        if not refused:
            return Seen(life=Life.ALIVE, how=f"the agent's session used: accepted ({answer})")
        return Seen(life=Life.REFUSED, how=f"the agent's session used: refused ({answer}); {place}")
    tried = _tried(records, node)
    if tried and tried.get("refused"):
        used = f"one from just before used just after: refused ({tried['answer']})"
        return Seen(life=Life.REFUSED, how=f"{used}; {place}")
    return Seen(life=Life.GONE, how=f"{place}; none was at hand to be used")


def _tried(records: Records, node: CredentialNode) -> Mapping[str, Any]:
    """What became of a session made just before, in this incident."""
    receipt = records.made("credential.refuse", kind=node.kind, id=node.id)
    if receipt is not None and receipt.outcome.get("canary"):
        return dict(receipt.outcome["canary"])
    if node.kind == "aws-user-sessions":
        for other in records.ctx.incident.receipts:
            captured = other.captured.get("ref", {}).get("identifiers", {})
            if other.action == "aws.refuse-sessions" and captured.get("user") == node.id:
                return dict(other.outcome.get("user_session") or {})
    return {}


def _lived_ns(records: Records, parent: str) -> int:
    """Until when a closed parent could make sessions, by the issuer's clock; 0 where it is not known to be closed.

    One that still lives is not closed itself: that is its own node's matter.
    """
    kind, _, name = parent.partition("/")
    receipts = [
        receipt
        for receipt in records.ctx.incident.receipts
        if receipt.action == "credential.refuse"
        and receipt.params.get("kind") == kind
        and receipt.params.get("id") == name
    ]
    lived = [int(receipt.outcome.get("closed_ns", 0)) for receipt in receipts]
    if kind == "aws-access-key":
        lived += [
            receipt.applied_ns - records.skew_ns
            for receipt in records.ctx.incident.receipts
            if receipt.action == "aws.rotate-key" and receipt.outcome.get("replaced") == name
        ]
    return max(lived, default=0)


def capture(records: Records, node: CredentialNode, turn: int) -> dict[str, Any]:
    """The name of the policy that will be put: one for each turn, so that undoing removes just that."""
    del node
    return {"policy": f"clawback-{_plain(records.ctx.incident.id)}-closure-{turn}"[:128]}


def close(records: Records, node: CredentialNode, captured: Record, principal: str) -> dict[str, Any]:
    """Put the policy, with a session made just before, if one is to be had, used just after."""
    cloud, name = records.world.cloud, str(captured["policy"])
    outcome: dict[str, Any] = {"policy": name, "principal": principal}
    present = records.world.cloud_records.inline(principal).get(name)
    if present is not None and _moment(present):
        return outcome | {"before": _words(_moment(present)), "closed_ns": records.issuer_ns()}
    canary = _canary(records, node)
    moment = cloud.server_time() + timedelta(seconds=1 + math.ceil(cloud.settle) + _AHEAD_SECONDS)
    outcome["before"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    put = cloud.user_refuse if principal.startswith("user/") else cloud.sessions_refuse
    put(principal.removeprefix("user/"), before=outcome["before"], name=name)
    outcome["closed_ns"] = records.issuer_ns()
    if canary:
        refused, answer = watch_refused(lambda: cloud.permitted(canary), cloud.settle)
        outcome["canary"] = {"refused": refused, "answer": answer}
    return outcome


def reopen(records: Records, principal: str, captured: Record) -> None:
    """Remove that policy."""
    records.world.cloud_records.inline_delete(principal, str(captured["policy"]))


def _canary(records: Records, node: CredentialNode) -> str:
    """A session of the principal that works now, made with whatever of the agent's is at hand; empty where none is.

    It is never stored, and over within the hour.
    """
    cloud, store = records.world.cloud, records.world.secrets
    for agent in records.agents:
        for ref in store.refs(agent):
            if ref.kind not in {"aws-access-key", "aws-session"}:
                continue
            for value in (store.current(agent, ref.name), store.old(agent, ref.name)):
                if not value or not key_id(value):
                    continue
                try:
                    if node.kind == "aws-role-sessions":
                        session = cloud.session_create(value, node.id, "clawback-canary")
                    elif ref.kind == "aws-access-key" and ref.identifiers.get("user") == node.id:
                        session = cloud.user_session_create(value)
                    else:
                        continue
                    if cloud.permitted(session)[0]:
                        return session
                except (Refused, Unreachable):
                    continue
    return ""


def _moment(document: Mapping[str, Any]) -> int:
    """The moment in a document of ours, for ever where it denies without one, 0 in any other."""
    statements = document.get("Statement", [])
    first = statements[0] if isinstance(statements, list) and statements else statements
    if not isinstance(first, dict) or (first.get("Effect"), first.get("Action"), first.get("Resource")) != (
        "Deny",
        "*",
        "*",
    ):
        return 0
    if "Condition" not in first:
        return _FOREVER_NS
    try:
        stated = str(first["Condition"]["DateLessThan"]["aws:TokenIssueTime"])
        return int(datetime.fromisoformat(stated).timestamp()) * _SECOND_NS
    except (KeyError, TypeError, ValueError):
        return 0


def _words(moment: int) -> str:
    if moment >= _FOREVER_NS:
        return "any time"
    return datetime.fromtimestamp(moment // _SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(name: str) -> str:
    """As a policy's name may be spelt."""
    return re.sub(r"[^\w+=,.@-]", "-", name, flags=re.ASCII)
