"""What AWS wrote down about who made what: `clawback.world.CloudRecords`, by IAM's listings and CloudTrail's events.

CloudTrail keeps management calls for 90 days and answers `LookupEvents` twice a second; an event may show up 15 minutes
late (both by its user guide). So reads are few, bounded, and say up to when they can be complete; and what was read
once, and by then can have been late no more, is not read again (`known_events`). A stand-in's record
may hold requests alone, by the name of the HTTP call, with neither answer nor refusal: it is read for what it says.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from clawback.connectors.aws import AwsConnector
from clawback.connectors.aws_account import Throttled
from clawback.connectors.known_events import KnownEvents, Listing
from clawback.errors import NotFound, Unreachable
from clawback.world import Identity, Trail, TrailEvent

__all__ = ["AwsRecordsConnector"]

_IAM = "iam.amazonaws.com"
_THROTTLED_SECONDS = 20.0
_PAGE = 50
_MAX_EVENTS = 2_000
_MAX_ROLES = 5_000
_MAX_TEXT = 20_480  # a policy document's length, as IAM limits it
_TRAIL_LAG_SECONDS = 900.0
_SECOND_NS = 1_000_000_000


class AwsRecordsConnector:
    """Beside an `AwsConnector`, by its clients and rights.

    lag   seconds by which an event may be late; None: 15 minutes on AWS, none on a stand-in
    """

    def __init__(self, aws: AwsConnector, *, lag: float | None = None) -> None:
        self._aws = aws
        self._lag = lag if lag is not None else 0.0 if aws.is_stand_in else _TRAIL_LAG_SECONDS
        self._known = KnownEvents(self._lag)

    def trail(self, *, since_ns: int) -> Trail:
        """Three questions: what changed something, and the two read-only calls that issue sessions."""
        asked = (("ReadOnly", "false"), ("EventName", "AssumeRole"), ("EventName", "GetSessionToken"))
        since = datetime.fromtimestamp(since_ns // _SECOND_NS, UTC)
        return self._looked_up(asked, StartTime=since)

    def trail_named(self, names: Sequence[str], *, since_ns: int) -> Trail:
        """By name it is far fewer events than all that changed something, which is one look-up for each."""
        since = datetime.fromtimestamp(since_ns // _SECOND_NS, UTC)
        asked = tuple(("EventName", name) for name in names)
        # A stand-in files IAM's calls under the HTTP call's name.
        trail = self._looked_up((("EventSource", _IAM),) if self._aws.is_stand_in else asked, StartTime=since)
        return Trail(events=tuple(event for event in trail.events if event.name in names), cut=trail.cut)

    def trail_of(self, access_key_id: str) -> Trail:
        """One key's calls."""
        return self._looked_up((("AccessKeyId", access_key_id),))

    def keys(self, user: str) -> Mapping[str, tuple[str, int]]:
        """One user's keys."""
        with suppress(NotFound):
            listed = self._aws.ask("iam", "list_access_keys", UserName=user)["AccessKeyMetadata"]
            return {key["AccessKeyId"]: (str(key["Status"]), _ns(key["CreateDate"])) for key in listed}
        return {}

    def roles(self) -> Sequence[Identity]:
        """Page by page."""
        found: list[Identity] = []
        marker: dict[str, str] = {}
        while len(found) < _MAX_ROLES:
            page = self._aws.ask("iam", "list_roles", MaxItems=1000, **marker)
            found += [
                Identity(arn=str(role["Arn"]), trust=_document(role.get("AssumeRolePolicyDocument")))
                for role in page["Roles"]
            ]
            if not page.get("IsTruncated"):
                break
            marker = {"Marker": page["Marker"]}
        return found[:_MAX_ROLES]

    def exists(self, principal: str) -> bool:
        """By GetUser or GetRole."""
        kind, name = _principal(principal)
        with suppress(NotFound):
            self._aws.ask("iam", f"get_{kind}", **{f"{kind.title()}Name": name})
            return True
        return False

    def inline(self, principal: str) -> Mapping[str, dict[str, Any]]:
        """Each by name."""
        with suppress(NotFound):
            found = {name: self._aws.inline_policy(principal, name) for name in self._aws.inline_policies(principal)}
            return {name: _document(document) for name, document in found.items() if document is not None}
        return {}

    def inline_put(self, principal: str, name: str, document: Mapping[str, Any]) -> None:
        """Set one."""
        self._aws.inline_put(principal, name, dict(document))

    def inline_delete(self, principal: str, name: str) -> None:
        """Remove one."""
        self._aws.inline_delete(principal, name)

    def attached(self, principal: str) -> Sequence[str]:
        """ARNs."""
        with suppress(NotFound):
            return self._aws.attached(principal)
        return ()

    def attach(self, principal: str, policy: str) -> None:
        """Attach a managed policy."""
        self._aws.attach(principal, policy)

    def detach(self, principal: str, policy: str) -> None:
        """Detach it."""
        self._aws.detach(principal, policy)

    def _looked_up(self, asked: tuple[tuple[str, str], ...], **window: Any) -> Trail:
        found: dict[str, TrailEvent] = {}
        cut: list[str] = []
        since, until = 0, 0
        for name, value in asked:
            one = self._list(name, value, window)
            found |= {key: event for key, (_, event) in one.events.items()}
            cut += one.left
            since = max(since, one.whole_ns)
        if self._lag:
            at = datetime.fromtimestamp(time.time() - self._lag, UTC)
            until = _ns(at)
            cut.append(f"CloudTrail may not yet hold what happened since {at:%Y-%m-%dT%H:%M:%SZ}")
        events = tuple(sorted(found.values(), key=lambda event: event.time_ns))
        return Trail(events=events, cut=tuple(cut), since_ns=since, until_ns=until)

    def _list(self, name: str, value: str, window: dict[str, Any]) -> Listing:
        """All by one attribute: what was read of it before, and from there on."""
        start = window.get("StartTime")
        known = self._known.of(name, value, start)
        listed, left, whole_ns = self._all_of(name, value, {"StartTime": known.until} if known else dict(window))
        # Oldest first, for they are listed the other way round: of moments there are whole seconds alone.
        events = {str(event["EventId"]): (event["EventTime"], _event(event)) for event in reversed(listed)}
        if known:
            before = known.listing
            events = before.events | events
            left, whole_ns = dict.fromkeys(before.left) | left, max(whole_ns, before.whole_ns)
        if len(events) > _MAX_EVENTS:
            events = dict(sorted(events.items(), key=lambda item: item[1][0])[-_MAX_EVENTS:])
            left[_more_than(name, value)] = None
            whole_ns = max(whole_ns, _ns(next(iter(events.values()))[0]) + _SECOND_NS)
        listing = Listing(events, tuple(left), whole_ns)
        self._known.keep(name, value, start, listing)
        return listing

    def _page(self, **request: Any) -> dict[str, Any]:
        """CloudTrail takes two look-ups a second. What does not answer at all is not waited for."""
        import stamina

        for attempt in stamina.retry_context(on=Throttled, attempts=6, timeout=_THROTTLED_SECONDS, wait_initial=0.5):
            with attempt:
                return self._aws.ask("cloudtrail", "lookup_events", **request)
        raise AssertionError("stamina returns or raises")

    def _all_of(self, name: str, value: str, window: dict[str, Any]) -> tuple[list[Any], dict[str, None], int]:
        """Events by one attribute, newest first; what was left out, and since when nothing was (0: ever)."""
        wanted = [{"AttributeKey": name, "AttributeValue": value}]
        listed: list[Any] = []
        left: dict[str, None] = {}
        since = 0
        while len(listed) < _MAX_EVENTS:
            page = self._page(LookupAttributes=wanted, MaxResults=_PAGE, **window)
            events = page.get("Events")
            if not isinstance(events, list):
                raise Unreachable("CloudTrail answered with what is no list of events")
            listed += events
            if page.get("NextToken"):
                window["NextToken"] = page["NextToken"]
            elif self._aws.is_stand_in and len(events) == _PAGE:
                # ministack gives the newest fifty and no token for more: go on from where they end. Moments are sent
                # in whole seconds, so of a second with more than fifty some stay out of reach.
                end = min(event["EventTime"] for event in events).replace(microsecond=0) + timedelta(seconds=1)
                if end == window.get("EndTime"):
                    left[f"more than {_PAGE} CloudTrail events within a second: some of them not read"] = None
                    since = max(since, _ns(end))
                    end -= timedelta(seconds=1)
                window["EndTime"] = end
            else:
                return listed, left, since
        oldest = min(event["EventTime"] for event in listed)
        left[_more_than(name, value)] = None
        return listed, left, max(since, _ns(oldest) + _SECOND_NS)


def _more_than(name: str, value: str) -> str:
    return f"more than {_MAX_EVENTS} CloudTrail events where {name} is {value}: older ones not read"


def _principal(text: str) -> tuple[str, str]:
    """`user/NAME`, `role/NAME`, a role's ARN → (kind, name)."""
    kind = "user" if text.startswith("user/") or ":user/" in text else "role"
    return kind, text.rpartition("/")[2]


def _document(value: Any) -> dict[str, Any]:
    """A policy document, which some answers give as URL-encoded JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(unquote(value))
        except ValueError:
            value = {}
    return dict(value) if isinstance(value, Mapping) else {}


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * _SECOND_NS


def _event(listed: Mapping[str, Any]) -> TrailEvent:
    """What is wanted of it, typed and bounded. Its text is in part the caller's."""
    try:
        raw = json.loads(listed.get("CloudTrailEvent") or "{}")
        who = raw.get("userIdentity") or {}
        params = _flat(raw.get("requestParameters"))
        answer = raw.get("responseElements") or {}
        named = str(raw.get("eventName") or listed.get("EventName") or "")
        issuer = ((who.get("sessionContext") or {}).get("sessionIssuer") or {}) if isinstance(who, dict) else {}
        return TrailEvent(
            time_ns=int(listed["EventTime"].timestamp() * 1e9),
            name=params.get("action", named) if "." in named else named,
            caller_key=str(who.get("accessKeyId") or "")[:128],
            issuer=str(issuer.get("arn") or "")[:2048],
            user=str(who.get("userName") or "")[:128] if _says_who(who) else "",
            params=params,
            made={name: text for part in answer.values() for name, text in _flat(part).items()},
            error=str(raw.get("errorCode") or "")[:128],
        )
    except (ValueError, TypeError, AttributeError):
        return TrailEvent(time_ns=int(listed["EventTime"].timestamp() * 1e9), name="", caller_key="")


def _says_who(who: Mapping[str, Any]) -> bool:
    """A user name that is the key id again says nothing."""
    return who.get("type") == "IAMUser" and who.get("userName") != who.get("accessKeyId")


def _flat(value: Any) -> dict[str, str]:
    """Its plain strings, by names that begin in lower case as CloudTrail's do."""
    if not isinstance(value, Mapping):
        return {}
    return {
        f"{name[:1].lower()}{name[1:64]}": text[:_MAX_TEXT]
        for name, text in list(value.items())[:64]
        if isinstance(name, str) and isinstance(text, str)
    }
