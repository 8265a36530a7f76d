"""What CloudTrail's calls by a credential made: each call by name, turned into nodes.

A call that AWS refused made nothing. A record that holds no answers does not say: then a call counts unless it was made
once its caller was closed; that something of it is there, each node's life says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from clawback.actions._records import Records, digest, role_name
from clawback.actions._walk import Issued
from clawback.model import CredentialNode, Known
from clawback.world import TrailEvent

__all__ = ["from_calls"]

_SECOND_NS = 1_000_000_000
# IAM stamps keys in whole seconds, CloudTrail its events too; the two are not taken at the same moment.
_NEAR_NS = 3 * _SECOND_NS
_MAX_NAMED = 10

_Made = Callable[[Records, TrailEvent, str], Iterable[CredentialNode]]


def from_calls(records: Records, events: Iterable[TrailEvent], *, user: str = "", closed_ns: int = 0) -> Issued:
    """`user`: the IAM user whose calls they are, where they name none. `closed_ns`: when the caller was refused."""
    found: dict[str, CredentialNode] = {}
    others: dict[str, None] = {}
    for event in events:
        silent = not event.made
        if event.error or (silent and closed_ns and event.time_ns >= closed_ns):
            continue
        if (read := _CALLS.get(event.name)) is not None:
            for node in read(records, event, user):
                found[node.key] = found[node.key].merged(node) if node.key in found else node
        elif event.name in _OTHER_CHANGES:
            others[f"{event.name} {_named(event.params)}".strip()] = None
    missing = []
    if others:
        shown = ", ".join(list(others)[:_MAX_NAMED]) + (" …" if len(others) > _MAX_NAMED else "")
        missing.append(f"it also changed what is not undone here, for a person to judge: {shown}")
    return Issued(nodes=tuple(found.values()), missing=tuple(missing))


def _said(event: TrailEvent) -> str:
    return f"CloudTrail has {event.name} by {event.caller_key}"


def _node(kind: str, name: str, event: TrailEvent, **facts: str) -> CredentialNode:
    return CredentialNode(
        kind=kind, id=name, known=Known.ISSUER, said=_said(event), facts=facts, issued_ns=event.time_ns
    )


def _role_session(_records: Records, event: TrailEvent, _user: str) -> Iterable[CredentialNode]:
    if role := event.params.get("roleArn", ""):
        yield _node("aws-role-sessions", role, event)


def _user_session(_records: Records, event: TrailEvent, user: str) -> Iterable[CredentialNode]:
    if name := event.user or user:
        yield _node("aws-user-sessions", name, event)


def _key(records: Records, event: TrailEvent, user: str) -> Iterable[CredentialNode]:
    name = event.params.get("userName") or event.made.get("userName") or event.user or user
    if not name:
        return
    listed = records.world.cloud_records.keys(name)
    named = event.made.get("accessKeyId", "")
    for key, (_, created) in listed.items():
        # A record without answers does not say which key it was: it is the one that IAM made at that moment.
        if key not in records.reissued and (key == named or (not named and abs(created - event.time_ns) <= _NEAR_NS)):
            yield _node("aws-access-key", key, event, user=name)


def _user(_records: Records, event: TrailEvent, _caller: str) -> Iterable[CredentialNode]:
    if name := event.params.get("userName", ""):
        yield _node("aws-identity", f"user/{name}", event)


def _role(_records: Records, event: TrailEvent, _caller: str) -> Iterable[CredentialNode]:
    if name := event.params.get("roleName", ""):
        yield _node("aws-identity", f"role/{name}", event)


def _trust(_records: Records, event: TrailEvent, _user: str) -> Iterable[CredentialNode]:
    if name := event.params.get("roleName", ""):
        yield _node("aws-trust", role_name(name), event, set=digest(event.params.get("policyDocument", "")))


def _grant(_records: Records, event: TrailEvent, user: str) -> Iterable[CredentialNode]:
    name, policy = _principal(event, user), event.params.get("policyName", "")
    if name and policy:
        yield _node(
            "aws-grant",
            f"{name}/{policy}",
            event,
            principal=name,
            policy=policy,
            set=digest(event.params.get("policyDocument", "")),
        )


def _attachment(_records: Records, event: TrailEvent, user: str) -> Iterable[CredentialNode]:
    name, policy = _principal(event, user), event.params.get("policyArn", "")
    if name and policy:
        yield _node("aws-grant", f"{name}/{policy}", event, principal=name, attached=policy)


def _principal(event: TrailEvent, user: str) -> str:
    if role := event.params.get("roleName", ""):
        return f"role/{role_name(role)}"
    name = event.params.get("userName") or user
    return f"user/{name}" if name else ""


def _named(params: Mapping[str, str]) -> str:
    wanted = ("userName", "roleName", "groupName", "policyArn", "policyName", "instanceProfileName")
    return " ".join(params[name][:128] for name in wanted if params.get(name))


_CALLS: Mapping[str, _Made] = {
    "AssumeRole": _role_session,
    "GetSessionToken": _user_session,
    "GetFederationToken": _user_session,
    "CreateAccessKey": _key,
    "CreateUser": _user,
    "CreateRole": _role,
    "UpdateAssumeRolePolicy": _trust,
    "PutUserPolicy": _grant,
    "PutRolePolicy": _grant,
    "AttachUserPolicy": _attachment,
    "AttachRolePolicy": _attachment,
}
_OTHER_CHANGES = frozenset(
    {
        "AddRoleToInstanceProfile",
        "AddUserToGroup",
        "AttachGroupPolicy",
        "CreateLoginProfile",
        "CreateOpenIDConnectProvider",
        "CreatePolicyVersion",
        "CreateSAMLProvider",
        "DeleteRolePermissionsBoundary",
        "DeleteRolePolicy",
        "DeleteUserPermissionsBoundary",
        "DeleteUserPolicy",
        "DetachRolePolicy",
        "DetachUserPolicy",
        "PutGroupPolicy",
        "SetDefaultPolicyVersion",
        "UpdateLoginProfile",
    }
)
