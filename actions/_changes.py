"""What an agent changed in IAM, read from the record of who changed what. Pure: events in, changes out.

The state before the agent's first change of a thing is what the last change by anybody else made of it. Where the
record, which goes back 90 days, has none, an inline policy that the agent put is taken for new, an attachment for the
opposite of the agent's first change; a trust policy or boundary is then unknown, and nobody can put it back from here.
So is an inline policy where the record was not read to its beginning: whoever put it may be in the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clawback.world import TrailEvent

__all__ = ["NAMES", "Change", "by_agent", "changes", "moment", "others"]

# A thing is (principal, kind, name); its state is a document, an ARN, True or False, or None where there is none of it.
_Thing = tuple[str, str, str]
_Text = Mapping[str, str]

_OF = {"user": "userName", "role": "roleName"}


def _document(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        return {}  # cut or left out by the record: equal to no document that is in force


def _thing(kind: str, what: str, name: str) -> Callable[[_Text], _Thing]:
    return lambda said: (f"{kind}/{said.get(_OF[kind], '')}", what, said.get(name, "") if name else "")


_EFFECTS: dict[str, tuple[Callable[[_Text], _Thing], Callable[[_Text], Any]]] = {
    "CreateRole": (_thing("role", "trust", ""), lambda said: _document(said.get("assumeRolePolicyDocument"))),
    "UpdateAssumeRolePolicy": (_thing("role", "trust", ""), lambda said: _document(said.get("policyDocument"))),
}
for _kind in ("user", "role"):
    _title = _kind.title()
    _EFFECTS |= {
        f"Put{_title}Policy": (
            _thing(_kind, "inline", "policyName"),
            lambda said: _document(said.get("policyDocument")),
        ),
        f"Delete{_title}Policy": (_thing(_kind, "inline", "policyName"), lambda _said: None),
        f"Attach{_title}Policy": (_thing(_kind, "attached", "policyArn"), lambda _said: True),
        f"Detach{_title}Policy": (_thing(_kind, "attached", "policyArn"), lambda _said: False),
        f"Put{_title}PermissionsBoundary": (
            _thing(_kind, "boundary", ""),
            lambda said: said.get("permissionsBoundary", ""),
        ),
        f"Delete{_title}PermissionsBoundary": (_thing(_kind, "boundary", ""), lambda _said: ""),
    }

# Changes that give somebody a way in and are undone by other steps, or by a person.
_OTHERS = (
    "AddRoleToInstanceProfile",
    "AddUserToGroup",
    "AttachGroupPolicy",
    "CreateAccessKey",
    "CreateLoginProfile",
    "CreateOpenIDConnectProvider",
    "CreatePolicyVersion",
    "CreateSAMLProvider",
    "CreateServiceSpecificCredential",
    "CreateUser",
    "EnableMFADevice",
    "PutGroupPolicy",
    "SetDefaultPolicyVersion",
    "UpdateAccessKey",
    "UpdateLoginProfile",
    "UploadSSHPublicKey",
    "UploadSigningCertificate",
)
NAMES = (*_EFFECTS, *_OTHERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that the agent changed: what it was, and what the agent's last change made of it.

    `known`: what it was could be told; else `was` means nothing.
    """

    principal: str
    kind: str
    name: str
    was: Any
    known: bool
    left: Any
    times_ns: tuple[int, ...]


def by_agent(
    events: Iterable[TrailEvent], *, keys: set[str], users: set[str], roles: set[str]
) -> tuple[TrailEvent, ...]:
    """The agent's events: by its keys, users and roles (ARNs), and by each key that one of these made."""
    ours, known = [], set(keys)
    for event in events:
        if event.caller_key in known or event.user in users - {""} or event.issuer in roles - {""}:
            ours.append(event)
            known |= {event.made.get("accessKeyId", "")} - {""}
    return tuple(ours)


def changes(
    events: tuple[TrailEvent, ...], ours: tuple[TrailEvent, ...], *, since_ns: int, whole: bool = True
) -> tuple[Change, ...]:
    """What the agent changed since then, each thing once, in the order of its first change. Events are oldest first;
    `whole`: none is missing before them.
    """
    mine = {id(event) for event in ours if event.time_ns >= since_ns}
    before: dict[_Thing, Any] = {}
    found: dict[_Thing, dict[str, Any]] = {}
    for event in events:
        if event.error or event.name not in _EFFECTS:
            continue
        find, state = _EFFECTS[event.name]
        thing, now = find(event.params), state(event.params)
        if id(event) not in mine:
            before[thing] = now
            continue
        facts = found.get(thing)
        if facts is None:
            known, was = (True, before[thing]) if thing in before else _supposed(thing[1], event.name, now, whole=whole)
            facts = found[thing] = {"known": known, "was": was, "times_ns": (), "states": []}
        elif thing in before and before[thing] not in facts["states"]:
            facts |= {"known": True, "was": before[thing]}  # somebody had mended it in between
        facts |= {"left": now, "times_ns": (*facts["times_ns"], event.time_ns), "states": [*facts["states"], now]}
    return tuple(
        Change(
            principal=principal,
            kind=kind,
            name=name,
            was=facts["was"],
            known=facts["known"],
            left=facts["left"],
            times_ns=facts["times_ns"],
        )
        for (principal, kind, name), facts in found.items()
    )


def _supposed(kind: str, event: str, now: Any, *, whole: bool) -> tuple[bool, Any]:
    """(known, state) before a first change that nothing in the record goes before."""
    if kind == "attached":
        return True, not now
    if event in ("PutUserPolicy", "PutRolePolicy"):
        return whole, None
    if event == "CreateRole":
        return True, now  # the role itself is the agent's: a person's to delete, with all that hangs on it
    return False, None


def others(ours: tuple[TrailEvent, ...], *, since_ns: int) -> tuple[str, ...]:
    """The agent's other changes, in words."""
    lines = []
    for event in ours:
        if event.time_ns >= since_ns and not event.error and event.name in (*_OTHERS, "CreateRole"):
            named = (event.params.get(key) for key in ("userName", "roleName", "groupName", "policyArn"))
            lines.append(f"{event.name} {next(filter(None, named), '')[:200]} at {moment(event.time_ns)}")
    return tuple(dict.fromkeys(lines))


def moment(time_ns: int) -> str:
    """ISO 8601, whole seconds."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
